"""Errors that a user can fix: each message is one line with the fault and the remedy."""

from collections.abc import Iterable


class StereoError(Exception):
    """Base of this package's errors; the command line prints it as one line, exit status 1.

    Args:
        message: what is wrong and how to fix it. Unprintable characters, including line
            breaks and terminal escapes, are escaped.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class InputError(StereoError):
    """An input file or folder that cannot be used."""


class OutputError(StereoError):
    """A result that cannot be written."""


class FolderInUseError(OutputError):
    """An output folder that another run is writing to."""


class UsageError(StereoError):
    """A wrong call: an unknown name or an impossible combination of options."""

    exit_status = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in the list of known ones."""
    return UsageError(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")
