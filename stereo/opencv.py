"""The one place where OpenCV is imported: its wheel needs system libraries that may be missing."""

from types import ModuleType

from stereo.errors import StereoError


def import_cv2() -> ModuleType:
    """Import OpenCV.

    Raises:
        StereoError: the wheel or one of its system libraries (libGL, libgthread) is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise StereoError(
            f"OpenCV cannot be loaded ({error}): on Debian or Ubuntu run "
            "'apt-get install libgl1 libglib2.0-0', elsewhere 'pip install opencv-python-headless'"
        ) from error
    return cv2
