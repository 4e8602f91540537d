"""Console output: progress, tables and warnings."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from stereo.errors import StereoError
from stereo.system.distributed import is_main
from stereo.system.stop import INTERRUPTED, TERMINATED, check_stop, heed_signals

T = TypeVar("T")


def on_terminal() -> bool:
    """Return whether stderr, where progress bars show, is a terminal; it may be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def progress(items: Iterable[T], label: str, count: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar, which shows on a terminal only."""
    hidden = not (on_terminal() and is_main())
    for item in tqdm(items, desc=label, unit="pair", total=count, disable=hidden):
        check_stop()
        yield item


def say(line: str, *, everyone: bool = False) -> None:
    """Print a line without breaking a progress bar."""
    if sys.stdout is not None and (everyone or is_main()):
        tqdm.write(_printable(line), file=sys.stdout)
        sys.stdout.flush()


def warn(line: str) -> None:
    """Print a warning or an error on stderr without breaking a progress bar."""
    if sys.stderr is not None:
        tqdm.write(_printable(line), file=sys.stderr)


def _printable(text: str) -> str:
    """Escape what file names can hold and a terminal would obey; lines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's ``main``; our own errors, those of files and signals end it with one line."""
    show_warnings_as_lines()
    heed_signals()
    name = Path(sys.argv[0]).name
    try:
        main()
    except (StereoError, OSError) as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        warn(f"{name}: interrupted")
        sys.exit(INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code == TERMINATED:
            warn(f"{name}: terminated")
        raise


def show_warnings_as_lines() -> None:
    """Print each Python warning as one line, without its source location.

    Two kinds are dropped: Pillow's, since what matters in a damaged image becomes an error, and
    DistributedDataParallel's on strides, which are ambiguous in a kernel of one cell. The filters
    belong to all threads: they are for our own processes, not for programs that import the package.
    """

    def show(message: Warning | str, *_: object, **__: object) -> None:
        warn(f"warning: {' '.join(str(message).split())}")

    warnings.showwarning = show
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    warnings.filterwarnings("ignore", message="Grad strides do not match")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned Markdown table; numbers are right-aligned with two decimals."""

    def cell(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    head, *text = ([cell(value) for value in row] for row in (header, *rows))
    widths = [max(2, *map(len, column)) for column in zip(head, *text, strict=True)]
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(cells, widths, numeric, strict=True)
        )
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * (w - 1) + (":" if right else "-") for w, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(head), line(rule), *(line(row) for row in text)])
