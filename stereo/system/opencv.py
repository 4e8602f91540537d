"""The only place that imports OpenCV, whose wheel needs system libraries."""

import contextlib
import os
import threading
from collections.abc import Iterator
from types import ModuleType

from stereo.errors import StereoError
from stereo.system.limits import max_pixels

_LOG = threading.Lock()
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: our error line says it all


def import_cv2() -> ModuleType:
    """Import OpenCV.

    Raises:
        StereoError: the wheel or one of its system libraries (libGL, libgthread) is missing.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(max_pixels()))  # read on import
    try:
        import cv2
    except ImportError as error:
        raise StereoError(
            f"OpenCV cannot be loaded ({error}): on Debian or Ubuntu run "
            "'apt-get install libgl1 libglib2.0-0', elsewhere 'pip install opencv-python-headless'"
        ) from error
    return cv2


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's own stderr lines; its failures become our errors."""
    log = import_cv2().utils.logging
    with _LOG:
        level = log.setLogLevel(log.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            log.setLogLevel(level)
