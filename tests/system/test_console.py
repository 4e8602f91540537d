import subprocess
import sys

from stereo.system.console import say, table, warn

WARNINGS = """
import warnings
from stereo.system.console import show_warnings_as_lines
show_warnings_as_lines()
warnings.warn("Grad strides do not match bucket view strides. This may\\n indicate")
warnings.warn("two\\n  lines")
"""


def test_a_warning_is_one_line_and_one_on_ambiguous_strides_none():
    done = subprocess.run([sys.executable, "-c", WARNINGS], capture_output=True, text=True)
    assert done.stderr == "warning: two lines\n"


def test_terminal_escapes_of_file_names_are_shown_not_obeyed(capsys):
    for write in (say, warn):
        write("\x1b[31mview\ttwo\nlines\x07")
    shown = "\\x1b[31mview\ttwo\nlines\\x07\n"
    assert capsys.readouterr() == (shown, shown)


def test_a_table_is_markdown_whatever_its_cells_hold():
    assert table(["a|b", "n"], [["c|d", 1]]).splitlines() == [
        "| a\\|b |  n |",
        "| ---- | -: |",
        "| c\\|d |  1 |",
    ]
