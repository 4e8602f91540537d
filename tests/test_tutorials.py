"""The tutorials, whose blocks are run in order in one folder, and the answers to questions."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
from conftest import REPOSITORY

from stereo.attention import ATTENTIONS
from stereo.commands.cli import _build_parser, run

DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
FAILS = re.compile(r"#.* exit status (\d+)")
SAYS = re.compile(r"^print\(.*\)  # (.+)$", re.M)
KINDS = {"bash", "python", "yaml", "text"}  # text is not run, and says so


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that looks like the clone, with nothing of a reader's own in it."""
    shutil.copytree(REPOSITORY / "datasets" / "samples", tmp_path / "datasets" / "samples")
    monkeypatch.chdir(tmp_path)
    for name, attention in list(ATTENTIONS.items()):
        monkeypatch.setitem(ATTENTIONS, name, attention)
    before = set(ATTENTIONS)
    yield tmp_path
    for name in set(ATTENTIONS) - before:
        del ATTENTIONS[name]


def run_shell(text):
    """Run the lines of a block; ``stereo`` in this process, which spares loading PyTorch again."""
    for line in text.splitlines():
        failure = FAILS.search(line)
        expected = int(failure[1]) if failure else 0
        words = shlex.split(line, comments=True)
        if words[:1] == ["stereo"]:
            assert status_of(words[1:]) == expected, line
        elif words:
            assert subprocess.run(["bash", "-c", line]).returncode == expected, line


def status_of(arguments):
    try:
        return run(arguments)
    except SystemExit as error:
        return error.code


def walk(name, folder, capfd):
    """Run the blocks of a tutorial and return what it printed."""
    names = {}
    said = []
    for kind, text in BLOCK.findall((DOCS / name).read_text()):
        assert kind in KINDS, f"a block of kind '{kind}'"
        if kind == "bash":
            run_shell(text)
        elif kind == "python" and text.startswith("# ") and text.splitlines()[0].endswith(".py"):
            (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
        elif kind == "python":
            exec(compile(text, name, "exec"), names)
        elif kind == "yaml":
            file = text.splitlines()[0].removeprefix("# ")
            (folder / file).write_text(text)
        out, errors = capfd.readouterr()
        assert "Traceback" not in errors
        for promised in SAYS.findall(text):
            assert promised in out.splitlines()
        said.append(out + errors)
    return "\n".join(said)


@pytest.mark.slow
def test_the_practitioners_tutorial_runs(folder, capfd):
    said = walk("tutorial-practitioner.md", folder, capfd)
    assert "fault: swapped" in said
    for end in ("_color.png", "_disparity.pfm", "_depth.npy", "_depth.png", ".ply"):
        assert (folder / f"maps/left{end}").is_file()
    assert (folder / "maps/left_confidence.png").is_file()
    points = [(folder / kind / "left.ply").stat().st_size for kind in ("maps", "sure")]
    assert points[0] > points[1] > 0
    assert (folder / "scored/report.html").is_file()
    assert (folder / "look.png").is_file()
    assert list((folder / "smooth").glob("*.mp4"))


@pytest.mark.slow
def test_the_researchers_tutorial_runs(folder, capfd):
    walk("tutorial-researcher.md", folder, capfd)
    for name in ("efficient", "disparity", "none", "softplus"):
        assert (folder / "runs" / name / "best.safetensors").is_file()
        assert any((folder / "runs" / name / "tensorboard").iterdir())
    page = (folder / "all_three/report.html").read_text()
    for name in ("efficient", "none", "softplus"):
        assert f"{name}-best" in page
    assert (folder / "sheet.png").is_file()
    for protocol in ("pooled", "psmnet"):  # a network of one's own beside ours
        page = (folder / f"results/{protocol}/report.html").read_text()
        assert all(f">{name}<" in page for name in ("ea_stereo", "sgbm")) and "mine" in page
        report = json.loads((folder / f"results/{protocol}/metrics.json").read_text())
        assert report["protocol"]["name"] == protocol
        assert report["summary"]["epe_pixel"] < 10


COMPLETE = (  # what an option that stands alone is tried with
    "infer left right --output maps --ground-truth truth",
    "train --config quickstart --output run",
    "convert file --output file",
)


def is_understood(text):
    """Whether the command line takes a command, or an option by itself with one of a few."""
    words = shlex.split(text)
    whole = [words[1:]] if words[0] == "stereo" else [c.split() + words for c in COMPLETE]
    if whole == [words[1:]] and len(words) == 2:  # a command's name alone
        whole = [[words[1], "--help"]]
    return any(parses(given) for given in whole)


def parses(given):
    try:
        _build_parser(given)[0].parse_args(given)
    except SystemExit as error:
        return error.code == 0
    return True


def test_answers_to_questions_name_commands_and_options_that_exist(capfd):
    text = (DOCS / "faq.md").read_text()
    spans = {" ".join(span.split()) for span in re.findall(r"`((?:stereo |--)[^`]+)`", text)}
    assert spans
    assert [span for span in sorted(spans) if not is_understood(span)] == []
    assert not is_understood("stereo infer left right --output maps --no-such-option 1")
    assert not is_understood("--no-such-option 1")
