"""Read videos as frames, and split images that hold both views."""

import os
import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.data.io.images import is_picture
from stereo.errors import InputError, OutputError, UsageError
from stereo.system.limits import check_file, check_pixels
from stereo.system.opencv import import_cv2, quiet_opencv

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg"),
        *("wmv", "flv", "ogv", "mjpeg", "mjpg", "ts", "m2ts", "3gp"),
    )
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.]+://", re.IGNORECASE)
PACKINGS = ("side-by-side", "top-bottom")


def is_address(argument: str) -> bool:
    """Return whether an argument is the address of a stream or a remote file."""
    return bool(_ADDRESS.match(argument))


def is_video(argument: str) -> bool:
    """Return whether an argument names a video: by its suffix, else by whether OpenCV opens it."""
    path = Path(argument)
    if is_address(argument) or path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    if not os.path.isfile(argument) or is_picture(path):
        return False
    with path.open("rb") as file:
        if b"\0" not in file.read(4096):
            return False  # a text, which FFmpeg would draw as a video
    try:
        capture = _open(argument)
    except InputError:
        return True  # whose frames are too large
    with quiet_opencv():
        return bool(capture.read()[0])


def refuse_videos(paths: Iterable[Path]) -> None:
    """Raise ``InputError`` if a file, for a command that takes images, is a video."""
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise InputError(
                f"{path}: is a video, and this command takes images: extract frames of both views "
                f"first (ffmpeg -i {path.name} {path.stem}/%04d.png)"
            )


def split_views(picture: np.ndarray, packing: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut an image into the two views that it holds.

    Args:
        picture: (H, W, 3).
        packing: ``side-by-side``, the left view on the left, or ``top-bottom``, the left one above.
        name: what to call it in an error.

    Returns:
        left and right, half as wide or as high.

    Raises:
        UsageError: an unknown packing.
        InputError: an odd width or height.
    """
    if packing not in PACKINGS:
        raise UsageError(f"--packing '{packing}': expected {' or '.join(PACKINGS)}")
    axis = 1 if packing == "side-by-side" else 0
    if picture.shape[axis] % 2:
        raise InputError(
            f"{name}: {('height', 'width')[axis]} {picture.shape[axis]} is odd, so it cannot hold "
            f"two views {packing.replace('-', ' ')}"
        )
    left, right = np.split(picture, 2, axis)
    return np.ascontiguousarray(left), np.ascontiguousarray(right)


class Video:
    """Frames of a video, best read in order.

    Raises:
        InputError: it cannot be opened, or its frames are larger than ``stereo.system.limits``
            allows.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.path = Path(source)
        if not is_address(self.source):
            check_file(self.path)
        self._last: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()
        self._rewind()

    @property
    def name(self) -> str:
        """The stem of the file."""
        return self.path.stem

    @property
    def rate(self) -> float:
        """Frames per second; 25 if the file does not say."""
        rate = float(self._capture.get(import_cv2().CAP_PROP_FPS))
        return rate if 0 < rate < 1000 else 25.0

    def count(self) -> int:
        """Return the number of frames, by decoding all: the header is often wrong.

        Raises:
            InputError: a stream without an end.
        """
        self._rewind()
        told = self._capture.get(import_cv2().CAP_PROP_FRAME_COUNT)
        if is_address(self.source) and not told > 0:
            raise InputError(f"{self.source}: a stream without an end; record it to a file first")
        count = 0
        with quiet_opencv():
            while self._capture.grab():
                count += 1
        self._rewind()
        if told > count:
            warnings.warn(
                f"{self.source}: says it holds {told:.0f} frames, but only {count} can be decoded: "
                "truncated or damaged; the rest is left out",
                stacklevel=2,
            )
        return count

    def read(self, index: int) -> np.ndarray:
        """Return a frame, (H, W, 3) uint8 RGB.

        Raises:
            InputError: no such frame, or a damaged one.
        """
        with self._lock:
            return self._read(index)

    def _read(self, index: int) -> np.ndarray:
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if index < self._next:
            self._rewind()
        frame = None
        with quiet_opencv():
            while self._next < index and self._capture.grab():
                self._next += 1
            if self._next == index:
                _, frame = self._capture.read()
                self._next += 1
        if frame is None:
            raise InputError(f"{self.source}: frame {index} cannot be decoded")
        picture = np.ascontiguousarray(frame[..., ::-1])
        self._last = (index, picture)
        return picture

    def _rewind(self) -> None:
        self._capture = _open(self.source)
        if not self._capture.isOpened():
            raise InputError(
                f"{self.source}: OpenCV cannot open it as a video; damaged, or in a codec it lacks"
            )
        self._next = 0


def _open(source: str) -> Any:
    """Return a ``cv2.VideoCapture``, opened or not; no frame larger than allowed is decoded."""
    cv2 = import_cv2()
    with quiet_opencv():
        capture = cv2.VideoCapture(source)
    width, height = (
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if width > 0 and height > 0:
        check_pixels(width, height, source)
    return capture


def _own_picture(path: Path) -> np.ndarray:
    """Read an image of ours, which may be larger than the limit for others'."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def write_video(path: Path, pictures: list[Path], rate: float, name: str) -> None:
    """Write images of one size as an MP4 file, which errors call ``name``.

    Raises:
        OutputError: OpenCV has no encoder for it, or not all of it could be written.
        InputError: an image that cannot be read.
    """
    cv2 = import_cv2()
    height, width = _own_picture(pictures[0]).shape[:2]
    size = width - width % 2, height - height % 2  # what MPEG-4 takes
    with quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            raise OutputError(f"{name}: this OpenCV cannot write MP4; leave the format video out")
        for picture in pictures:
            frame = _own_picture(picture)
            if frame.shape[:2] != (height, width):  # which OpenCV leaves out without a word
                raise InputError(
                    f"{picture}: is {frame.shape[1]}x{frame.shape[0]}, the first frame "
                    f"{width}x{height}; a video has one size"
                )
            writer.write(np.ascontiguousarray(frame[: size[1], : size[0], ::-1]))
        writer.release()
    try:
        written = Video(path).count()  # OpenCV does not say whether it could write
    except InputError:
        written = 0
    if written < len(pictures):
        raise OutputError(
            f"{name}: {written} of {len(pictures)} frames could be written; is the disk full?"
        )
