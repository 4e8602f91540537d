"""Ctrl-C and SIGTERM.

Python drops what a signal's handler raises inside a ``__del__``, a callback of a weak reference
(every import makes one) or code that catches all exceptions, and the command would go on. So the
signal is also recorded, and long loops check it at every step.
"""

import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143
_received: int | None = None


def heed_signals() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` and SIGTERM ``SystemExit``, if late at a check."""
    signal.signal(signal.SIGTERM, _note)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell ignores it
        signal.signal(signal.SIGINT, _note)


def leave_to_system() -> None:
    """Let SIGTERM end the process at once, when only cleanup remains."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_stop() -> None:
    """Raise a handler's exception again, in case it was swallowed."""
    if _received is not None:
        end_by(_received)


def end_by(number: int) -> NoReturn:
    """Signal handler: raise the exception that ends the command.

    Raises:
        SystemExit: SIGTERM, with status 143.
        KeyboardInterrupt: Ctrl-C.
    """
    if number == signal.SIGTERM:
        raise SystemExit(TERMINATED)
    raise KeyboardInterrupt


def clear_stop() -> None:
    """Forget a signal that ended a command normally: Ctrl-C is how a server is stopped."""
    global _received
    _received = None


def _note(number: int, _frame: FrameType | None) -> None:
    global _received
    _received = number
    check_stop()
