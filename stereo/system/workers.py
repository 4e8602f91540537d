"""Processes of a pool."""

import multiprocessing
import os
import signal
import threading

from stereo.system.console import show_warnings_as_lines


def begin_worker() -> None:
    """Print warnings as lines, leave Ctrl-C to the parent, and end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_warnings_as_lines()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
