"""Binding, serving and cleaning up."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from stereo.app.models import Models
from stereo.app.pipeline import collect_warnings
from stereo.errors import StereoError, UsageError
from stereo.matching.options import MatchOptions
from stereo.system.console import say
from stereo.system.extras import import_extra
from stereo.system.stop import clear_stop


def serve(
    host: str = "127.0.0.1", port: int = 7860, *, model: str | None = None, device: str = "auto"
) -> None:
    """Serve the page until interrupted.

    Args:
        host: address to listen on; other than the default, others on the network can match too.
        port: 0 for any that is free.
        model: chosen at first: a name, or a file of yours, as stereo infer takes it.
        device: as in ``ComputeOptions``.

    Raises:
        UsageError: the port cannot be bound.
        StereoError: gradio is missing, or the model cannot be loaded.
    """
    models = Models(MatchOptions(device=device), model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_waiting())
        listener = stack.enter_context(contextlib.closing(_bind(host, port)))
        folder = stack.enter_context(_kept_together())  # sets what gradio reads when imported
        import_extra("gradio", "app", "the page")
        import uvicorn

        from stereo.app.routes import application

        app = application(models, folder, host)
        models.get(models.names[0], models.max_disparity(models.names[0]))
        collect_warnings()
        # The guard says what goes wrong; what these would add, any client could fill a disk with.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        shown = f"[{host}]" if ":" in host else host
        say(f"stereo app: http://{shown}:{listener.getsockname()[1]} (Ctrl-C stops it)")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            clear_stop()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OverflowError as error:
        raise UsageError(f"--port {port}: expected 0 to 65535") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StereoError(
            f"cannot listen on {host}, port {port}: {reason}; choose another --port"
        ) from error


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """Exit at once even if a match still runs; Python would wait for its thread."""
    before, status = set(threading.enumerate()), 0
    try:
        yield
    except SystemExit as stop:  # of SIGTERM
        status = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        threads = [each for each in set(threading.enumerate()) - before if not each.daemon]
        for thread in threads:
            thread.join(1)  # those of the pool end by themselves
        if any(thread.is_alive() for thread in threads):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


@contextlib.contextmanager
def _kept_together() -> Iterator[Path]:
    """Keep all temporary files in one folder, and libraries from sending telemetry."""
    with tempfile.TemporaryDirectory(
        prefix="stereo-app-",
        ignore_cleanup_errors=True,  # a match may still write
    ) as name:
        folder = Path(name).resolve()  # paths are compared as they are written
        for part in ("temporary", "uploads", "results"):
            (folder / part).mkdir()
        before = tempfile.tempdir, dict(os.environ)
        tempfile.tempdir = str(folder / "temporary")
        os.environ |= {
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        try:
            yield folder
        finally:
            tempfile.tempdir = before[0]
            os.environ.clear()
            os.environ |= before[1]
