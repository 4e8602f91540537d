import json
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA, posix_only, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from stereo.data.io.disparities import read_disparity, stored_scale, write_disparity
from stereo.errors import InputError, UsageError

FLOAT_SUFFIXES = [".pfm", ".npy", ".npz", ".tiff"]
SUFFIXES = [*FLOAT_SUFFIXES, ".png"]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
SPECIAL_BITS = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-39, np.inf, -np.inf, np.nan, 3.4028235e38, 191.5], np.float32
).view(np.uint32)
FLOAT_BITS = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([int(bits) for bits in SPECIAL_BITS])
)

properties = settings(max_examples=60, deadline=None)


def write_and_read(disparity, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"map{suffix}")
        write_disparity(path, disparity)
        return read_disparity(path)


def pfm_bytes(rows, byte_order, scale, size_line="{width} {height}\n", kind=b"Pf\n"):
    rows = np.asarray(rows, np.float32)
    header = size_line.format(width=rows.shape[1], height=rows.shape[0]).encode()
    return kind + header + scale + b"\n" + rows[::-1].astype(f"{byte_order}f4").tobytes()


def assert_refused(path, scale=None):
    with pytest.raises(InputError) as caught:
        read_disparity(path, scale)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message.replace(str(path), "")  # whose folder is called as the test is


def valid_file(folder, suffix):
    path = folder / f"map{suffix}"
    values = np.random.default_rng(3).uniform(1, 200, (16, 24)).astype(np.float32)
    write_disparity(path, values)
    return path


@pytest.mark.parametrize("suffix", [*FLOAT_SUFFIXES, ".png"])
def test_a_suffix_in_capitals_is_kept(tmp_path, suffix):
    path = valid_file(tmp_path, suffix.upper())
    assert list(tmp_path.iterdir()) == [path]
    assert read_disparity(path).shape == (16, 24)


@pytest.mark.parametrize("suffix", FLOAT_SUFFIXES)
@given(bits=hnp.arrays(np.uint32, SHAPES, elements=FLOAT_BITS))
@properties
def test_float_formats_come_back_bit_for_bit(suffix, bits):
    read = write_and_read(bits.view(np.float32), suffix)
    assert read.dtype == np.float32
    assert read.shape == bits.shape
    assert np.array_equal(read.view(np.uint32), bits)


@given(stored=hnp.arrays(np.uint16, SHAPES))
@properties
def test_png16_keeps_multiples_of_a_256th_exactly_and_zero_means_none(stored):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = write_and_read(stored.astype(np.float32) / 256, ".png")
    assert read.dtype == np.float32
    assert np.array_equal(np.isnan(read), stored == 0)
    assert np.array_equal(read[stored > 0], stored[stored > 0] / np.float32(256))


@given(disparity=hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 255.984375, width=32)))
@properties
def test_png16_rounds_to_the_nearest_256th(disparity):
    read = write_and_read(disparity, ".png")
    expected = np.rint(disparity.astype(np.float64) * 256) / 256
    assert np.array_equal(np.isnan(read), expected == 0)
    assert np.array_equal(np.nan_to_num(read), expected)


@given(disparity=hnp.arrays(np.float32, SHAPES, elements=st.floats(256, 2.0**127, width=32)))
@properties
def test_png16_clamps_what_is_too_large_with_a_warning_and_never_wraps(disparity):
    with pytest.warns(UserWarning, match="clamped") as caught:
        read = write_and_read(disparity, ".png")
    assert len(caught) == 1
    assert str(disparity.size) in str(caught[0].message)
    assert (read == np.float32(65535 / 256)).all()


def test_png16_clamps_negative_disparities_to_none_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="clamped"):
        write_disparity(tmp_path / "map.png", np.array([[-5.0, 2.0]], np.float32))
    read = read_disparity(tmp_path / "map.png")
    assert np.isnan(read[0, 0])
    assert read[0, 1] == 2


def test_png_stores_nan_and_infinity_as_zero_which_reads_as_nan(tmp_path):
    path = tmp_path / "map.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_disparity(path, np.array([[np.nan, np.inf, -np.inf, 7]], np.float32))
    assert np.array_equal(np.asarray(Image.open(path)) == 0, [[True, True, True, False]])
    assert np.array_equal(read_disparity(path), [[np.nan] * 3 + [7]], equal_nan=True)


def test_png16_stores_the_rounded_product_with_256_as_uint16(tmp_path, rng):
    disparity = rng.uniform(0, 250, (5, 7)).astype(np.float32)
    write_disparity(tmp_path / "map.png", disparity)
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.mode == "I;16"
        assert np.array_equal(np.asarray(picture), np.rint(disparity * 256).astype(np.uint16))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8, 16])
def test_eight_bit_png_is_read_with_a_scale(scale, tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(stored).save(tmp_path / "map.png")
    read = read_disparity(tmp_path / "map.png", scale)
    assert np.isnan(read[0, 0])
    assert np.array_equal(read.flat[1:], stored.flat[1:] / np.float32(scale))


def test_a_clamping_warning_counts_the_pixels(tmp_path):
    with pytest.warns(UserWarning, match=r"4 disparities outside 0\.\.255\.996 px"):
        write_disparity(tmp_path / "map.png", np.full((2, 2), 999, np.float32))


@pytest.mark.parametrize(
    ("byte_order", "scale"),
    [
        ("<", b"-1"),
        ("<", b"-1.0"),
        (">", b"1"),
        (">", b"1.000000"),
        ("<", b"-0.003922"),
        (">", b"0.003922"),
    ],
)
def test_pfm_of_both_byte_orders_keeps_its_values_whatever_the_scale(byte_order, scale, tmp_path):
    rows = [[1.5, np.inf, 3.25], [-4, np.nan, 1e-45]]
    path = tmp_path / "map.pfm"
    path.write_bytes(pfm_bytes(rows, byte_order, scale))
    assert np.array_equal(read_disparity(path), np.float32(rows), equal_nan=True)


@pytest.mark.parametrize(
    "size_line",
    ["{width} {height}\n", "{width} {height} \n", "{width} {height}  \n", "{width}\n{height}\n"],
    ids=["plain", "Scene Flow's trailing space", "two spaces", "two lines"],
)
def test_pfm_header_spaces_do_not_shift_the_rows(size_line, tmp_path):
    rows = np.arange(15, dtype=np.float32).reshape(3, 5)
    path = tmp_path / "map.pfm"
    path.write_bytes(pfm_bytes(rows, "<", b"-1", size_line))
    assert np.array_equal(read_disparity(path), rows)


@pytest.mark.parametrize("first", [b"\n", b" ", b"#", b"\x0a\x0d\x20\x09"])
def test_pfm_values_that_look_like_whitespace_are_values(first, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows[2, 0] = np.frombuffer((first + b"\0\0\0\0")[:4], "<f4")[0]
    path = tmp_path / "map.pfm"
    path.write_bytes(pfm_bytes(rows, "<", b"-1"))
    assert np.array_equal(read_disparity(path), rows)


def test_written_pfm_is_little_endian_and_bottom_up(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_disparity(tmp_path / "map.pfm", rows)
    content = (tmp_path / "map.pfm").read_bytes()
    kind, size, scale, values = content.split(b"\n", 3)
    assert (kind, size.split(), float(scale) < 0) == (b"Pf", [b"3", b"2"], True)
    assert values == rows[::-1].astype("<f4").tobytes()


def test_colour_pfm_is_refused(tmp_path):
    path = tmp_path / "flow.pfm"
    path.write_bytes(pfm_bytes(np.zeros((2, 9)), "<", b"-1", "3 2\n", kind=b"PF\n"))
    assert "colour" in assert_refused(path)


def test_colour_png_is_refused(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "map.png")
    assert_refused(tmp_path / "map.png")


def test_an_eight_bit_picture_without_a_scale_is_refused_and_the_option_is_named(tmp_path):
    Image.new("L", (4, 3), 7).save(tmp_path / "map.png")
    message = assert_refused(tmp_path / "map.png")
    assert "scale" in message
    assert np.array_equal(read_disparity(tmp_path / "map.png", 2), np.full((3, 4), 3.5))


def test_an_eight_bit_palette_picture_reads_as_its_grey_values(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 80, 80, 80, 224, 224, 224])
    picture.save(tmp_path / "map.png")
    assert np.array_equal(
        read_disparity(tmp_path / "map.png", 16), [[np.nan, 5], [14, 5]], equal_nan=True
    )


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_sixteen_bit_tiff_and_pgm_need_a_scale(order, tmp_path):
    mode = {"<": "I;16", ">": "I;16B"}[order]
    stored = np.array([[0, 256, 640], [1, 65535, 512]], f"{order}u2")
    Image.frombytes(mode, (3, 2), stored.tobytes()).save(tmp_path / "map.tiff")
    (tmp_path / "map.pgm").write_bytes(b"P5\n3 2\n65535\n" + stored.astype(">u2").tobytes())
    expected = np.where(stored == 0, np.nan, stored / 256)
    for name in ("map.tiff", "map.pgm"):
        with pytest.raises(InputError, match="unknown scale"):
            read_disparity(tmp_path / name)
        assert np.array_equal(read_disparity(tmp_path / name, 256), expected, equal_nan=True), name


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<i4", ">i8"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_integer_arrays_need_a_scale_as_integer_pictures_do(suffix, dtype, tmp_path):
    path = tmp_path / f"map{suffix}"
    stored = np.array([[0, 2], [3, 100]], dtype)
    np.savez(path, disparity=stored) if suffix == ".npz" else np.save(path, stored)
    assert "unknown scale" in assert_refused(path)
    assert np.array_equal(read_disparity(path, 4), [[np.nan, 0.5], [0.75, 25]], equal_nan=True)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_in_fortran_order_are_read_correctly(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    values = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    np.savez_compressed(path, values) if suffix == ".npz" else np.save(path, values)
    assert np.array_equal(read_disparity(path), values)


@pytest.mark.parametrize("plain", [False, True], ids=["binary", "plain"])
@pytest.mark.parametrize("largest", [63, 255, 1023, 65535])
def test_pgm_values_ignore_the_maximum_in_the_header(largest, plain, tmp_path):
    stored = np.array([[0, 1, 17], [30, 62, 63]])
    if plain:
        data = b"P2\n3 2\n%d\n" % largest + b" ".join(b"%d" % value for value in stored.ravel())
    else:
        data = (
            b"P5\n3 2\n%d\n" % largest + stored.astype("u1" if largest < 256 else ">u2").tobytes()
        )
    (tmp_path / "map.pgm").write_bytes(data)
    expected = np.where(stored == 0, np.nan, stored)
    assert np.array_equal(read_disparity(tmp_path / "map.pgm", 1), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_npy_of_any_floating_point_type_reads_as_pixels(dtype, tmp_path):
    np.save(tmp_path / "map.npy", np.array([[1, 2], [3, 100]], dtype))
    read = read_disparity(tmp_path / "map.npy")
    assert read.dtype == np.float32
    assert np.array_equal(read, [[1, 2], [3, 100]])


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4, 1), (1, 1, 3, 4)], ids=str)
def test_npy_with_single_axes_reads_as_a_map(shape, tmp_path):
    np.save(tmp_path / "map.npy", np.ones(shape, np.float32))
    assert read_disparity(tmp_path / "map.npy").shape == (3, 4)


@pytest.mark.parametrize(
    "array",
    [
        np.ones(5),
        np.ones((2, 3, 4)),
        np.ones((0, 4)),
        np.float64(3),
        np.ones((2, 2), complex),
        np.array([["a", "b"]]),
        np.array([[True, False]]),
        np.array([[{}, None]], dtype=object),
        np.zeros((2, 2), [("x", "f4")]),
    ],
    ids=["1d", "3d", "no rows", "0d", "complex", "text", "bool", "objects", "records"],
)
def test_npy_of_another_shape_or_kind_is_refused(array, tmp_path):
    np.save(tmp_path / "map.npy", array)
    assert_refused(tmp_path / "map.npy")


def test_npz_is_read_by_the_name_disparity_or_by_being_alone(tmp_path):
    values = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "named.npz", disparity=values, other=values * 2)
    np.savez(tmp_path / "alone.npz", anything=values)
    np.savez(tmp_path / "unclear.npz", a=values, b=values)
    assert np.array_equal(read_disparity(tmp_path / "named.npz"), values)
    assert np.array_equal(read_disparity(tmp_path / "alone.npz"), values)
    assert_refused(tmp_path / "unclear.npz")


def test_npz_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "map.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not an array")
    assert_refused(path)


def test_npz_without_any_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "map.npz", "w"):
        pass
    assert_refused(tmp_path / "map.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_text_file_with_the_suffix_is_refused(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    path.write_text("This is a note.\nIt has two lines.\n")
    assert_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    path.touch()
    assert "empty" in assert_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_refused(suffix, tmp_path):
    assert "no such file" in assert_refused(tmp_path / f"map{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_refused(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    path.mkdir()
    assert "folder" in assert_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_zero_bytes_values_is_refused(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    path.write_bytes(bytes(200))
    assert_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9], ids=lambda kept: f"{kept:.0%} kept")
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = valid_file(tmp_path, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * kept))])
    assert_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_bytes_give_a_map_or_an_input_error(suffix, tmp_path):
    rng = np.random.default_rng(5)
    original = np.frombuffer(valid_file(tmp_path, suffix).read_bytes(), np.uint8)
    path = tmp_path / f"damaged{suffix}"
    others = {}
    for _ in range(400):
        damaged = original.copy()
        first = 0 if rng.random() < 0.5 else len(original) - 200
        places = first + rng.integers(0, 200, rng.integers(1, 4))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = read_disparity(path)
            assert read.ndim == 2
        except InputError as error:
            assert len(str(error).splitlines()) == 1
        except Exception as error:
            others[type(error).__name__] = str(error)[:100]
    assert not others


@pytest.mark.parametrize("suffix", [".txt", ".flo", ""])
def test_an_unknown_suffix_is_refused_with_the_known_ones(suffix, tmp_path):
    path = tmp_path / f"map{suffix}"
    path.write_text("1 2 3")
    assert ".pfm" in assert_refused(path)


@pytest.mark.parametrize(
    "disparity",
    [np.zeros((2, 3, 1), np.float32), np.zeros(4, np.float32), np.zeros((2, 2), np.uint16)],
    ids=["3d", "1d", "integers"],
)
def test_only_float_maps_are_written(disparity, tmp_path):
    with pytest.raises(UsageError):
        write_disparity(tmp_path / "map.pfm", disparity)
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_not_written(tmp_path):
    with pytest.raises(UsageError):
        write_disparity(tmp_path / "map.jpg", np.zeros((2, 2), np.float32))
    assert not list(tmp_path.iterdir())


def real_pairs():
    manifest = SHARED_DATA / "real" / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else []
    cases = [
        pytest.param(entry, id=entry["name"])
        for entry in entries
        if entry["decode"] != "png8_resize_nearest"
    ]
    return cases or [pytest.param(None, id="reference data not at hand")]


@pytest.mark.parametrize("entry", real_pairs())
def test_published_disparities_decode_to_the_reference(entry):
    root = shared("real")
    scale = entry["divide_by"] if entry["decode"] in ("png8", "png16") else None
    decoded = read_disparity(root / entry["disparity"], scale)
    truth = read_disparity(root / entry["gt"])
    valid = np.isfinite(truth) & (truth != 0)
    assert decoded.shape == (entry["height"], entry["width"])
    assert valid.any()
    assert np.array_equal(decoded[valid], truth[valid])


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e-300, 1e300])
def test_scales_that_are_not_positive_are_wrong_calls(scale, tmp_path):
    write_disparity(tmp_path / "map.png", np.ones((2, 2), np.float32))
    with pytest.raises(UsageError, match="positive"):
        read_disparity(tmp_path / "map.png", scale)


@pytest.mark.parametrize("suffix", [".pfm", ".npy", ".npz", ".tiff"])
def test_float_formats_take_no_scale(suffix, tmp_path):
    write_disparity(tmp_path / f"map{suffix}", np.ones((2, 2), np.float32))
    assert stored_scale(tmp_path / f"map{suffix}") is None
    with pytest.raises(InputError, match="integers only"):
        read_disparity(tmp_path / f"map{suffix}", 16)


@pytest.mark.parametrize(
    "header",
    [
        b"Pf\n3 2\n-1.0 \n",
        b"Pf\n3 2\n-1.0\t \n",
        b"Pf\n3 2\n-1.0\r\n",
        b"Pf\r\n3 2\r\n-1\r\n",
        b"Pf\n3 2\n-1.0 ",
        b"Pf\n3\n2\n-1\n",
        b"Pf\n# made by hand\n3 2\n# the order\n-1\n",
        b"Pf 3 2 -1e0\n",
    ],
)
@pytest.mark.parametrize("first", [b"\0\0\x80\x3f", b"\n\n\n\n", b"\r\n \t", b"# 1\n"])
def test_pfm_values_start_after_any_whitespace(header, first, tmp_path):
    data = np.arange(6, dtype="<f4").tobytes()[4:] + first
    (tmp_path / "map.pfm").write_bytes(header + data)
    expected = np.frombuffer(data, "<f4").reshape(2, 3)[::-1]
    assert np.array_equal(read_disparity(tmp_path / "map.pfm"), expected)


@pytest.mark.parametrize(
    "header",
    [
        b"Pf\n3 2\n-1\n\n",
        b"Pf\n3 2\n-1 \r",
        b"Pf\n3 2\n-1 #x\n",
        b"Pf\n3 2\n-1",
        b"Pf\n3 2\n0\n",
        b"Pf\n3 2\nnan\n",
        b"Pf\n3 2\n-inf\n",
        b"Pf\n3 2\n-1.2.3\n",
        b"Pf\n3 2\n",
        b"Pf\n3 2 1\n-1\n",
        b"Pf\n3.0 2\n-1\n",
        b"Pf\n2 2\n-1\n",
        b"Pf\n3 3\n-1\n",
        b"Pf3 2\n-1\n",
        b"P5\n3 2\n255\n",
    ],
)
def test_a_pfm_with_a_bad_header_or_trailing_bytes_is_refused(header, tmp_path):
    (tmp_path / "map.pfm").write_bytes(header + np.ones(6, "<f4").tobytes())
    assert_refused(tmp_path / "map.pfm")


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (b"  ", "2 bytes of blanks"),
        (b"\n\n", "2 bytes of blanks"),
        (b"\r\n\r\n", "4 bytes of blanks"),
        (b" # by hand\n", "comment between the scale and the values"),
        (b"\n# one\r\n# two\n", "comment between the scale and the values"),
        (b"#" * 50_000 + b"\n\0", "text-mode"),
        (b"#" * 200_000 + b"\n", "text-mode"),
        (b"", "truncated"),
    ],
)
def test_bad_pfm_headers_are_quoted(gap, told, tmp_path):
    values = np.ones(6, "<f4").tobytes()
    (tmp_path / "map.pfm").write_bytes(b"Pf\n3 2\n-1" + gap + values)
    assert told in assert_refused(tmp_path / "map.pfm")
    (tmp_path / "map.pfm").write_bytes(b"Pf\n3 2\n-1\n" + values[:-1])
    message = assert_refused(tmp_path / "map.pfm")
    assert "truncated" in message
    assert "text-mode" not in message


def test_a_pfm_changed_by_a_text_mode_copy_is_refused(tmp_path):
    values = np.frombuffer(b"\n\0\0\0" * 5 + b"\0\0\n\0", "<f4")
    content = b"Pf\n3 2\n-1\n" + values.tobytes()
    (tmp_path / "map.pfm").write_bytes(content.replace(b"\n", b"\r\n"))
    assert "text-mode" in assert_refused(tmp_path / "map.pfm")


@posix_only
@pytest.mark.parametrize("suffix", [".pfm", ".tiff", ".npy", ".npz", ".png"])
def test_a_map_truncated_by_a_full_disk_is_an_error(tmp_path, rng, suffix):
    import resource  # of POSIX

    values = rng.random((60, 90), np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError):
            write_disparity(tmp_path / f"map{suffix}", values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
