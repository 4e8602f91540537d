import struct
import subprocess
import sys
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from stereo.data.io.images import as_images, read_both_views, read_image, read_samples
from stereo.data.sets.sample import read_pair
from stereo.errors import InputError
from stereo.geometry.check import check_pair
from stereo.matching.loading import load

ORIENTATION_TAG = 0x0112
RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]
DEEP_RGB = np.random.default_rng(2).integers(0, 65536, (5, 7, 3), np.uint16)
DEEP_GREY = DEEP_RGB[..., 0]


def as_image(image, name):
    return as_images([image], [name])[0]


def repeated(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def high_byte(samples):
    return (samples >> 8).astype(np.uint8)


def assert_reads_as(path, expected):
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.shape == expected.shape
    assert np.array_equal(read, expected)


def assert_refused(path):
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message.replace(str(path), "")  # whose folder is called as the test is


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "tiff", "webp", "PNG", "jp2"])
def test_lossless_rgb_reads_as_it_was_written(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(RGB).save(path, **options)
    assert_reads_as(path, RGB)


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "tif", "gif"])
def test_eight_bit_grey_is_repeated_to_three_channels(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    Image.fromarray(GREY).save(path)
    assert_reads_as(path, repeated(GREY))


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    assert cv2.imwrite(str(path), DEEP_GREY)
    assert_reads_as(path, repeated(high_byte(DEEP_GREY)))


def test_big_endian_sixteen_bit_tiff_keeps_its_high_byte(tmp_path):
    path = tmp_path / "view.tif"
    Image.frombytes("I;16B", (7, 5), DEEP_GREY.astype(">u2").tobytes()).save(path)
    assert_reads_as(path, repeated(high_byte(DEEP_GREY)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_rgb_keeps_its_high_bytes(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    assert cv2.imwrite(str(path), DEEP_RGB[..., ::-1])
    assert_reads_as(path, high_byte(DEEP_RGB))


DEPTH_SUFFIXES = ["png", "tif", "ppm"]
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


def of_depth(bits, samples=RGB, stretched=False):
    """Return 8-bit samples as a camera of more bits stores them, in 16."""
    if stretched:
        return np.rint(samples * ((2**bits - 1) / 255)).astype(np.uint16)
    return samples.astype(np.uint16) << (bits - 8)


@pytest.mark.filterwarnings("ignore:the 16-bit")
@pytest.mark.parametrize("stretched", [False, True], ids=["shifted", "stretched"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [*DEPTH_SUFFIXES, "grey png", "grey tif", "grey pgm", "array"])
def test_samples_of_any_depth_give_back_the_eight_bits_they_came_from(
    suffix, bits, stretched, tmp_path
):
    full = RGB.copy()
    full[0, 0] = 255
    if suffix.startswith("grey"):
        full = full[..., :1]
    deep = of_depth(bits, full, stretched)
    expected = full if full.shape[2] == 3 else repeated(full[..., 0])
    if suffix == "array":
        assert np.array_equal(as_image(deep, "the left image"), expected)
    else:
        path = tmp_path / f"view.{suffix.split()[-1]}"
        assert cv2.imwrite(str(path), deep[..., ::-1])
        assert_reads_as(path, expected)


def test_a_pgm_keeps_its_samples(tmp_path):
    samples = np.arange(0, 1024, dtype=np.uint16).reshape(32, 32)
    path = tmp_path / "view.pgm"
    path.write_bytes(b"P5\n32 32\n1023\n" + samples.astype(">u2").tobytes())
    found = read_samples(path)
    assert np.array_equal(found[..., 0], samples)


def test_both_views_are_reduced_to_eight_bits_by_one_reported_shift():
    dark, bright = np.full((4, 6), 700, np.uint16), np.full((4, 6), 3000, np.uint16)
    with pytest.warns(UserWarning, match="read as 12-bit"):
        left, right = as_images([dark, bright], ["left", "right"])
    assert (left == 700 >> 4).all() and (right == 3000 >> 4).all()
    assert (as_images([left, bright], ["left", "right"])[0] == left).all()


@pytest.mark.filterwarnings("ignore:the 16-bit")
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_pair_of_any_bit_depth_is_matched_as_its_eight_bits(bits, tmp_path):
    rng = np.random.default_rng(5)
    view = cv2.GaussianBlur(rng.integers(0, 256, (64, 160, 3), np.uint8), (0, 0), 1.5)
    view[0, :9] = 255
    pair = [np.ascontiguousarray(view[:, start : start + 150]) for start in (0, 7)]
    deep = [of_depth(bits, each, stretched=True) for each in pair]
    paths = [tmp_path / "left.png", tmp_path / "right.tif"]
    for path, samples in zip(paths, deep, strict=True):
        assert cv2.imwrite(str(path), samples[..., ::-1])
    matcher = load("sgbm", max_disparity=16)
    expected = matcher(*pair).disparity
    assert np.array_equal(matcher(*deep).disparity, expected)
    assert np.array_equal(matcher(*paths).disparity, expected)
    assert np.array_equal(matcher.both(*deep)[0].disparity, expected)
    turned = matcher(*deep, view="right").disparity
    assert np.array_equal(turned, matcher(*pair, view="right").disparity)
    assert all(map(np.array_equal, read_pair(*paths), pair))
    (note,) = [n for n in check_pair(*paths, 192).notes if n.startswith("16-bit")]
    assert f"the upper 8 of {bits} bits of the left and the right view" in note


@pytest.mark.filterwarnings("ignore:the 16-bit samples")
@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (1024, 12), (16383, 14), (16384, 16)])
def test_no_sample_is_beyond_the_bits_found(largest, bits):
    samples = np.full((2, 3), largest, np.uint16)
    assert (as_image(samples, "a") == largest >> (bits - 8)).all()
    (known,) = as_images([samples], ["a"], least_depth=16)  # of its series, whose frames are bright
    assert (known == largest >> 8).all()
    assert (as_image(np.full((2, 3), 65535, np.int32), "a") == 255).all()


def test_the_bit_depth_is_reported_once_per_run(stereo, tmp_path):
    rng = np.random.default_rng(5)
    for number in range(3):
        for side in ("left", "right"):
            (tmp_path / side).mkdir(exist_ok=True)
            deep = rng.integers(0, 1024, (40, 60), np.uint16)
            Image.fromarray(deep).save(tmp_path / side / f"{number}.png")
    views = (tmp_path / "left", tmp_path / "right")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = stereo("infer", *views, "--output", tmp_path / "out", "--model", "sgbm")
    said = [line for line in done.errors if "read as 10-bit" in line]
    assert done.status == 0
    assert len(said) == 1, done.errors


def test_full_range_and_black_images_trigger_no_warning(recwarn):
    as_images([np.full((4, 6), 40_000, np.uint16), np.zeros((4, 6), np.uint16)], "lr")
    as_images([np.zeros((4, 6), np.uint16)] * 2, "lr")
    as_images([RGB, RGB], "lr")
    assert not recwarn


@pytest.mark.filterwarnings("ignore:the 16-bit")
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2", "<i4", ">i4"])
def test_ten_bits_in_any_sixteen_bit_type_are_ten_bits(dtype):
    deep = of_depth(10)
    deep[0, 0] = 1023
    assert np.array_equal(as_image(deep.astype(dtype), "view"), (deep >> 2).astype(np.uint8))


@pytest.mark.parametrize("dtype", ["<i2", "<i4"])
def test_negative_samples_are_refused(dtype):
    with pytest.raises(InputError, match="expected uint8 or uint16"):
        as_image(np.full((4, 6), -1, dtype), "view")


@pytest.mark.parametrize("orientation", TURNS)
def test_sixteen_bit_colours_are_rotated_by_their_exif(orientation, tmp_path):
    expected = TURNS[orientation](high_byte(DEEP_RGB))
    (tmp_path / "view.png").write_bytes(turned_png(orientation, tmp_path))
    assert_reads_as(tmp_path / "view.png", expected)
    for big in (False, True):
        (tmp_path / "view.tif").write_bytes(turned_tiff(orientation, big))
        assert_reads_as(tmp_path / "view.tif", expected)


def turned_png(orientation, folder):
    assert cv2.imwrite(str(folder / "plain.png"), DEEP_RGB[..., ::-1])
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    plain = (folder / "plain.png").read_bytes()
    return plain[:33] + chunk + plain[33:]


def turned_tiff(orientation, big):
    height, width = DEEP_RGB.shape[:2]
    data = DEEP_RGB.astype(">u2" if big else "<u2").tobytes()
    order = ">" if big else "<"
    bits = 8 + len(data)
    tags = {256: width, 257: height, 259: 1, 262: 2, 273: 8, 274: orientation, 277: 3}
    tags |= {278: height, 279: len(data)}
    rows = [struct.pack(f"{order}HHIHH", 258, 3, 3, 0, 0)[:8] + struct.pack(f"{order}I", bits)]
    rows += [struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    rows.sort(key=lambda row: struct.unpack(f"{order}H", row[:2]))
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", bits + 6)
    body = struct.pack(f"{order}3H", 16, 16, 16) + struct.pack(f"{order}H", len(rows))
    return head + data + body + b"".join(rows) + bytes(4)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_rgba_keeps_its_high_bytes_and_drops_transparency(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    alpha = np.full((5, 7, 1), 9000, np.uint16)
    assert cv2.imwrite(str(path), np.concatenate([DEEP_RGB[..., ::-1], alpha], axis=2))
    assert_reads_as(path, high_byte(DEEP_RGB))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_rgba_drops_transparency_and_keeps_the_colours_below_it(suffix, tmp_path):
    path = tmp_path / f"view.{suffix}"
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7, 1)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(np.concatenate([RGB, alpha], axis=2)).save(path, **options)
    assert_reads_as(path, RGB)


def test_grey_with_alpha_reads_as_grey(tmp_path):
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]).save(tmp_path / "view.png")
    assert_reads_as(tmp_path / "view.png", repeated(GREY))


@pytest.mark.parametrize("transparent", [None, 1], ids=["opaque", "with transparency"])
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palettes_are_expanded(suffix, transparent, tmp_path):
    palette = np.array([[255, 0, 0], [0, 200, 10], [9, 8, 7]], np.uint8)
    indices = np.arange(35, dtype=np.uint8).reshape(5, 7) % 3
    picture = Image.frombytes("P", (7, 5), indices.tobytes())
    picture.putpalette(palette.ravel().tolist())
    options = {} if transparent is None else {"transparency": transparent}
    picture.save(tmp_path / f"view.{suffix}", **options)
    assert_reads_as(tmp_path / f"view.{suffix}", palette[indices])


@pytest.mark.parametrize("suffix", ["png", "tif", "pbm", "bmp"])
def test_one_bit_images_become_black_and_white(suffix, tmp_path):
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / f"view.{suffix}")
    assert_reads_as(tmp_path / f"view.{suffix}", repeated(np.where(bits, 255, 0).astype(np.uint8)))


def test_cmyk_jpeg_reads_as_rgb(tmp_path):
    red = Image.new("RGB", (16, 8), (220, 30, 40)).convert("CMYK")
    red.save(tmp_path / "view.jpg", quality=95)
    read = read_image(tmp_path / "view.jpg")
    assert read.shape == (8, 16, 3)
    assert np.abs(read.astype(int) - [220, 30, 40]).max() <= 6


def test_jpeg_reads_as_rgb_within_its_loss(tmp_path):
    Image.new("RGB", (16, 8), (220, 30, 40)).save(tmp_path / "view.jpeg", quality=95)
    read = read_image(tmp_path / "view.jpeg")
    assert read.shape == (8, 16, 3)
    assert np.abs(read.astype(int) - [220, 30, 40]).max() <= 6


@pytest.mark.parametrize(("orientation", "upright"), TURNS.items())
def test_a_jpeg_is_rotated_by_its_exif(orientation, upright, tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = (250, 10, 10)
    stored[8:, 16:] = (10, 10, 250)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(stored).save(tmp_path / "view.jpg", quality=100, subsampling=0, exif=exif)
    read = read_image(tmp_path / "view.jpg")
    expected = upright(stored)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() < 30


def test_opencv_reads_what_pillow_cannot(tmp_path):
    path = tmp_path / "view.pam"
    header = b"P7\nWIDTH 7\nHEIGHT 5\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n"
    path.write_bytes(header + GREY.tobytes())
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    assert_reads_as(path, repeated(GREY))


def test_a_high_dynamic_range_image_is_refused(tmp_path):
    assert cv2.imwrite(str(tmp_path / "view.hdr"), RGB.astype(np.float32))
    assert_refused(tmp_path / "view.hdr")


def test_a_floating_point_tiff_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "view.tif")
    assert "8 bits" in assert_refused(tmp_path / "view.tif")


def save_frames(path, sizes=((48, 32), (48, 32)), **options):
    frames = [Image.new("RGB", size, (60 * i + 20,) * 3) for i, size in enumerate(sizes)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_several_frames_are_refused_and_not_reduced_to_the_first(suffix, tmp_path):
    assert "several frames" in assert_refused(save_frames(tmp_path / f"view.{suffix}"))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_a_single_frame_of_such_a_format_is_an_image(suffix, tmp_path):
    assert read_image(save_frames(tmp_path / f"view.{suffix}", [(48, 32)])).shape == (32, 48, 3)


@pytest.mark.parametrize(("subfile", "refused"), [(0, True), (1, False), (4, False)])
def test_previews_and_masks_of_a_tiff_are_not_pages(subfile, refused, tmp_path):
    path = tmp_path / "view.tif"
    preview = Image.new("RGB", (24, 16))
    preview.encoderinfo = {"tiffinfo": {254: subfile}}
    Image.new("RGB", (48, 32)).save(path, save_all=True, append_images=[preview])
    if refused:
        assert_refused(path)
    else:
        assert read_image(path).shape == (32, 48, 3)


def test_the_first_frame_of_an_mpo_is_read_with_a_note(tmp_path):
    path = save_frames(tmp_path / "view.mpo")
    with pytest.warns(UserWarning, match="both views"):
        assert np.abs(read_image(path).astype(int) - 20).max() <= 3
    left, right = read_both_views(path)
    assert np.abs(left.astype(int) - 20).max() <= 3
    assert np.abs(right.astype(int) - 80).max() <= 3


def test_a_preview_is_no_view_of_an_mpo(tmp_path):
    path = save_frames(tmp_path / "view.mpo", [(48, 32), (48, 32), (24, 16)])
    assert [view.shape for view in read_both_views(path)] == [(32, 48, 3)] * 2


def test_an_mpo_of_an_image_and_its_preview_is_that_image(tmp_path, recwarn):
    path = save_frames(tmp_path / "view.jpg", [(48, 32), (24, 16)], format="MPO")
    assert read_image(path).shape == (32, 48, 3)
    assert not [warning for warning in recwarn if "both views" in str(warning.message)]
    with pytest.raises(InputError, match="both views"):
        read_both_views(path)


@pytest.mark.parametrize("views", [1, 2])
def test_what_cameras_append_to_a_jpeg_is_not_its_scans(views, tmp_path):
    first, *others = (Image.new("RGB", (32, 24), (60 * n, 90, 30)) for n in range(views))
    path = tmp_path / "raw.jpg"
    first.save(path, "MPO", save_all=True, append_images=others)
    before = read_image(path)
    with path.open("ab") as file:
        file.write(300 * b"raw\xff\xda")
    assert np.array_equal(read_image(path), before)


def test_an_mpo_of_three_views_is_refused(tmp_path):
    path = save_frames(tmp_path / "view.mpo", [(48, 32)] * 3)
    assert "several frames" in assert_refused(path)
    with pytest.raises(InputError, match="both views"):
        read_both_views(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "ppm"])
def test_a_text_file_with_the_suffix_is_refused_quietly(suffix, tmp_path, capfd):
    path = tmp_path / f"view.{suffix}"
    path.write_text("This is a note.\nIt has two lines.\n")
    assert_refused(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "ppm", "hdr", "exr", "jp2"])
def test_a_file_of_zero_bytes_values_is_refused_quietly(suffix, tmp_path, capfd):
    path = tmp_path / f"view.{suffix}"
    path.write_bytes(bytes(300))
    assert_refused(path)
    assert capfd.readouterr().err == ""


FILTERS = """
import warnings
from stereo.data.io import images
from stereo.system.console import show_warnings_as_lines
print("PIL" in str(warnings.filters))
show_warnings_as_lines()
print("PIL" in str(warnings.filters))
"""


def test_only_our_own_processes_ignore_pillows_warnings():
    call = [sys.executable, "-c", FILTERS]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "view.png").touch()
    assert "empty" in assert_refused(tmp_path / "view.png")


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in assert_refused(tmp_path / "view.png")


def test_a_folder_is_refused(tmp_path):
    assert "folder" in assert_refused(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "ppm", "gif"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7], ids=lambda kept: f"{kept:.0%} kept")
def test_a_truncated_image_is_refused_quietly(suffix, kept, tmp_path, capfd):
    noise = np.random.default_rng(4).integers(0, 256, (40, 50, 3), np.uint8)
    path = tmp_path / f"view.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * kept))])
    assert_refused(path)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "ppm", "gif"])
def test_damaged_bytes_give_an_image_or_an_input_error(suffix, tmp_path):
    rng = np.random.default_rng(6)
    path = tmp_path / f"view.{suffix}"
    Image.fromarray(RGB.repeat(4, 0).repeat(4, 1)).save(path)
    original = np.frombuffer(path.read_bytes(), np.uint8)
    others = {}
    for _ in range(300):
        damaged = original.copy()
        end = 150 if rng.random() < 0.5 else len(original)
        places = rng.integers(0, min(end, len(original)), rng.integers(1, 4))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            read = read_image(path)
            assert read.ndim == 3 and read.shape[2] == 3
        except InputError as error:
            assert len(str(error).splitlines()) == 1
        except Exception as error:
            others[type(error).__name__] = str(error)[:100]
    assert not others


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (GREY, repeated(GREY)),
        (GREY[..., None], repeated(GREY)),
        (np.dstack([RGB, GREY]), RGB),
        (DEEP_RGB, high_byte(DEEP_RGB)),
        (DEEP_GREY, repeated(high_byte(DEEP_GREY))),
        (DEEP_GREY.astype(">u2"), repeated(high_byte(DEEP_GREY))),
        (RGB[:, ::-1], RGB[:, ::-1]),
    ],
    ids=[
        "rgb",
        "grey",
        "grey channel",
        "rgba",
        "deep rgb",
        "deep grey",
        "big-endian",
        "mirrored view",
    ],
)
def test_arrays_become_three_channels_of_uint8(array, expected):
    image = as_image(array, "the left image")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32),
        GREY > 3,
        RGB.astype(np.int64) - 400,
        RGB.astype(np.int32) + 70000,
        RGB[..., :2],
        RGB[None],
        RGB[0, :, 0],
        RGB[:0],
        np.zeros((4, 4, 5), np.uint8),
    ],
    ids=[
        "float",
        "bool",
        "int64",
        "large int32",
        "2 channels",
        "4d",
        "1d",
        "no rows",
        "5 channels",
    ],
)
def test_arrays_of_another_type_or_shape_are_refused_by_name(array):
    with pytest.raises(InputError, match="the left image") as caught:
        as_image(array, "the left image")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_pil_images_of_any_mode_become_rgb(mode):
    image = as_image(Image.new(mode, (7, 5)), "the left image")
    assert image.dtype == np.uint8
    assert image.shape == (5, 7, 3)


def test_a_pil_image_keeps_its_values():
    assert np.array_equal(as_image(Image.fromarray(RGB), "the left image"), RGB)


def test_a_floating_point_pil_image_is_refused():
    with pytest.raises(InputError, match="the left image"):
        as_image(Image.new("F", (7, 5)), "the left image")


def test_a_pil_image_without_pixels_is_refused():
    with pytest.raises(InputError, match="the left image"):
        as_image(Image.new("RGB", (0, 5)), "the left image")


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "Path"])
def test_a_path_is_read(kind, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "view.png")
    assert np.array_equal(as_image(kind(tmp_path / "view.png"), "the left image"), RGB)


@pytest.mark.parametrize("thing", [None, 3, [[1, 2]], b"bytes"], ids=repr)
def test_other_types_are_refused(thing):
    with pytest.raises(InputError, match="the left image"):
        as_image(thing, "the left image")
