"""Open image files: known formats within the limits, not yet decoded."""

import contextlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from stereo.errors import InputError, StereoError
from stereo.system.limits import TooLargeError, check_file, check_pixels, max_pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "JPEG2000", "AVIF")
"""Pillow's names. It knows others, and one of them starts Ghostscript."""
MAX_BYTES_PER_PIXEL = 16
MAX_METADATA = 2**28  # bytes: profiles, previews and the like
MAX_SCANS = 200  # of a progressive JPEG; each passes over the whole image
MAX_FRAMES_CHECKED = 32
MAX_PPM_HEADER = 2**16  # bytes
MAX_PPM_COMMENTS = 1000  # of a plain PPM; each is cut out of a megabyte
_TILE_WIDTH, _TILE_LENGTH, _BITS_PER_SAMPLE, _SUBFILE_TYPE = 322, 323, 258, 254
_REDUCED_OR_MASK = 0b101
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # that starts a segment, or ends a JPEG
_CODESTREAM = b"\xff\x4f\xff\x51"
_MAX_CHANNELS = 4


class NotAPictureError(InputError):
    """A file of an unknown format."""


@contextlib.contextmanager
def open_picture(
    source: Path | BinaryIO, name: str, formats: tuple[str, ...] = FORMATS
) -> Iterator[ImageFile]:
    """Open an image after checking its header against the limits; nothing is decoded.

    Whatever goes wrong in the block is worded as damage of the file.

    Raises:
        NotAPictureError: of none of the formats.
        InputError: larger than ``stereo.system.limits`` allows, or damaged.
    """
    try:
        if isinstance(source, Path):
            most = MAX_BYTES_PER_PIXEL * max_pixels() + MAX_METADATA
            check_file(source, most, "an image", may_be_empty=True)
        _check_webp(source, name)  # Pillow allocates two canvases on opening one
        _check_ppm(source, name)  # and reads a header byte by byte
        _let_pillow_open_what_we_allow()
        with _opened(source, name, formats) as image:
            _check(image, source, name)
            yield image
    except UnidentifiedImageError as error:
        known = ", ".join(formats)
        is_tiff = name.lower().endswith((".tif", ".tiff"))
        told = " (of TIFFs, those of 8 and 16 bits are read)" if is_tiff else ""
        raise NotAPictureError(f"{name}: damaged, or no image of these: {known}{told}") from error
    except (StereoError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{name}: more pixels than the limit of {max_pixels() / 1e6:g} megapixels; if the file "
            "is to be trusted, raise it with --max-megapixels"
        ) from None
    except Exception as error:  # a damaged file can raise nearly anything
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: damaged or truncated image ({told})") from error


def _opened(source: Path | BinaryIO, name: str, formats: tuple[str, ...]) -> ImageFile:
    try:
        return Image.open(source, formats=formats)
    except MemoryError:  # a part of the header claims to have more bytes than there are
        raise InputError(f"{name}: damaged: its header claims more than fits in memory") from None


def check_one_frame(image: ImageFile, name: str) -> None:
    """Raise ``InputError`` if a file holds several images.

    The previews of a TIFF may be, and of an MPO the other view and smaller frames.
    """
    if not getattr(image, "is_animated", False):
        return
    if image.format == "MPO" and _further_views(image) < 2:
        return
    if image.format == "TIFF" and _has_previews_alone(image):
        return
    raise InputError(
        f"{name}: holds several frames or pages; save the one you mean as a single image, or use "
        "a video"
    )


def holds_both_views(image: ImageFile) -> bool:
    """Return whether a file is an MPO of two frames of one size: the left and the right view."""
    return image.format == "MPO" and _further_views(image) == 1


def frames(image: ImageFile) -> range:
    """Return the frames to look at; no camera writes more."""
    return range(min(getattr(image, "n_frames", 1), MAX_FRAMES_CHECKED))


def _further_views(image: ImageFile) -> int:
    """Count the frames of an MPO that have the size of the first.

    Telephones store others: a preview, or a map of the brightness.
    """
    size, count = image.size, 0
    for frame in frames(image)[1:]:
        image.seek(frame)
        count += image.size == size
    image.seek(0)
    return count


def is_deep_colour(image: ImageFile) -> bool:
    """Return whether an image has 16-bit colours; Pillow keeps only their high bytes."""
    if image.mode.startswith("I"):
        return False
    if image.format == "PNG":
        return ";16" in str(image.tile[0][3])
    if image.format == "TIFF":
        return max(_tag(image, _BITS_PER_SAMPLE, (1,))) > 8 and image.mode != "F"
    return image.format == "PPM" and image.mode == "RGB" and largest_of_ppm(image) > 255


def largest_of_ppm(image: ImageFile) -> int:
    """Return the value in a PPM's or PGM's header that Pillow stretches to 255 or 65535."""
    decoder, _, _, settings = image.tile[0]
    if decoder in ("ppm", "ppm_plain") and isinstance(settings, tuple):
        return int(settings[1])
    return 65535 if image.mode == "I" else 255


def _let_pillow_open_what_we_allow() -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and max_pixels() > 2 * most:  # it refuses at twice its limit
        Image.MAX_IMAGE_PIXELS = max_pixels()


def _check(image: ImageFile, source: Path | BinaryIO, name: str) -> None:
    check_pixels(*image.size, name)
    if image.format == "TIFF":
        # A tile is decoded as a whole, however little of it the image shows.
        width, length = (max(_tag(image, tag, (1,))) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        check_pixels(width, length, f"{name}'s tiles")
    elif image.format == "JPEG2000":
        # The box that Pillow reads may say something else than what is decoded.
        width, height, channels = _codestream_size(_read(source), name)
        check_pixels(width, height, name)
        if channels > _MAX_CHANNELS:
            raise InputError(f"{name}: has {channels} channels; expected grey or colours")
    elif image.format in ("JPEG", "MPO"):
        _check_scans(image, _read(source), name)


def _check_scans(image: ImageFile, data: bytes, name: str) -> None:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    for frame in frames(image):
        image.seek(frame)
        scans = _scans(data, image.tile[0][2])
        if scans > MAX_SCANS:
            raise InputError(
                f"{name}: a JPEG of {scans} scans, more than any encoder writes; save it again"
            )
    image.seek(0)


def _scans(data: bytes, start: int) -> int:
    """Count the scans of a JPEG up to its end, after which cameras put other data."""
    scans, at = 0, start + 2
    while (marker := _MARKER.search(data, at)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def _tag(image: ImageFile, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    return value if isinstance(value, tuple) else (value,)


def _has_previews_alone(image: ImageFile) -> bool:
    """Return whether all but the first page of a TIFF are smaller copies of it, or masks."""
    try:
        for page in range(1, MAX_FRAMES_CHECKED):
            image.seek(page)
            if not _tag(image, _SUBFILE_TYPE, (0,))[0] & _REDUCED_OR_MASK:
                return False
    except EOFError:
        return True
    finally:
        image.seek(0)
    return False


def _check_webp(source: Path | BinaryIO, name: str) -> None:
    head = _read(source, 30)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return
    if head[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(head[i : i + 3], "little") for i in (24, 27))
    elif head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (value & 0x3FFF for value in struct.unpack("<2H", head[26:30]))
    check_pixels(width, height, name)


def _check_ppm(source: Path | BinaryIO, name: str) -> None:
    head = _read(source, MAX_PPM_HEADER)
    if not re.match(rb"P[0-6fy]", head):
        return
    fields = re.sub(rb"#[^\r\n]*", b"", head).split(None, 3)
    expected = 3 if head[1:2] in b"14" else 4
    if len(head) == MAX_PPM_HEADER and len(fields) < expected:
        raise InputError(f"{name}: a header longer than {MAX_PPM_HEADER >> 10} KiB; save it again")
    if head[1:2] in b"123" and _read(source).count(b"#") > MAX_PPM_COMMENTS:
        raise InputError(f"{name}: more than {MAX_PPM_COMMENTS} comments; save it again")


def _codestream_size(data: bytes, name: str) -> tuple[int, int, int]:
    """Return width, height and channels of a JPEG 2000 file, as its decoder will see them."""
    start = 0
    while data[start : start + 4] != _CODESTREAM:  # one of the boxes holds it
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        if kind == b"jp2c":
            start += head
            if data[start : start + 4] != _CODESTREAM:
                raise InputError(f"{name}: damaged JPEG 2000 image")
        elif length < head:
            raise InputError(f"{name}: damaged JPEG 2000 image")
        else:
            start += length
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (channels,) = struct.unpack_from(">H", data, start + 40)
    return right - left, bottom - top, channels


def _read(source: Path | BinaryIO, count: int = -1) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(count)
    source.seek(0)
    data = source.read(count)
    source.seek(0)
    return data
