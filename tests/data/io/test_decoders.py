"""Encodings of disparity: values worked by hand, and the real files through their data sets."""

import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import shared
from PIL import Image

from stereo.data.io import decoders
from stereo.data.io.disparities import read_disparity
from stereo.data.sets.datasets import open_dataset
from stereo.errors import InputError

ANY = (1, 3)


def stored_file(path, values):
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("scale", "values", "expected"),
    [
        # KITTI divides by 256, InStereo2K by 100, CREStereo by 32; 0 is nothing.
        (None, [0, 256, 3968], [np.nan, 1.0, 15.5]),
        (100, [0, 100, 4250], [np.nan, 1.0, 42.5]),
        (32, [0, 32, 80], [np.nan, 1.0, 2.5]),
    ],
)
def test_scaled_integers(tmp_path, scale, values, expected):
    path = stored_file(tmp_path / "a.png", np.array([values], np.uint16))
    np.testing.assert_array_equal(decoders.stored(scale)(path, ANY), [expected])


def test_sintel_encoding(tmp_path):
    # (3, 64, 128) is 4 x 3 + 64 / 64 + 128 / 16384 = 12 + 1 + 0.0078125
    colours = np.array([[[0, 0, 0], [3, 64, 128], [255, 255, 255]]], np.uint8)
    path = stored_file(tmp_path / "a.png", colours)
    expected = [0.0, 13.0078125, 1020 + 255 / 64 + 255 / 16384]
    np.testing.assert_array_equal(decoders.decode_sintel(path, ANY), np.float32([expected]))


def test_falling_things_reads_the_focal_length_beside_it(tmp_path):
    path = stored_file(tmp_path / "a.left.depth.png", np.array([[0, 600, 1200]], np.uint16))
    settings = tmp_path / "_camera_settings.json"
    settings.write_text('{"camera_settings": [{"intrinsic_settings": {"fx": 50}}]}')
    # 600 x 50 / 600 = 50; no depth, no disparity
    np.testing.assert_array_equal(decoders.decode_falling_things(path, ANY), [[np.inf, 50, 25]])
    for text in ("{}", "[1]", '{"camera_settings": []}', "not json"):
        settings.write_text(text)
        with pytest.raises(InputError, match="_camera_settings"):
            decoders.decode_falling_things(path, ANY)


def test_virtual_kitti_2_is_in_centimetres(tmp_path):
    path = stored_file(tmp_path / "a.png", np.array([[100, 1000, 65535]], np.uint16))
    one_metre = 0.532725 * 725.0087  # 386.23 px
    expected = [one_metre, one_metre / 10, one_metre / 655.35]
    np.testing.assert_allclose(decoders.decode_vkitti2(path, ANY), [expected], rtol=1e-6)


def test_tartanair_is_80_over_depth(tmp_path):
    np.save(tmp_path / "a.npy", np.float32([[1, 40, np.inf]]))
    np.testing.assert_array_equal(decoders.decode_tartanair(tmp_path / "a.npy", ANY), [[80, 2, 0]])


def test_a_negative_map_becomes_positive(tmp_path):
    for sign in (1, -1):
        path = stored_file(tmp_path / "a.pfm", sign * np.float32([[1, 2, -3]]))
        np.testing.assert_array_equal(decoders.decode_either_sign(path, ANY), [[1, 2, -3]])


@pytest.mark.parametrize(("height", "divisor"), [(1110, 1), (555, 2), (370, 3)])
def test_middlebury_2005_scales_with_its_size(tmp_path, height, divisor):
    values = np.full((height, 2), 30, np.uint8)
    values[0, 0] = 0
    disparity = decoders.decode_middlebury_full_pixels(
        stored_file(tmp_path / "disp1.png", values), (height, 2)
    )
    assert np.isnan(disparity[0, 0])
    assert (disparity.ravel()[1:] == 30 / divisor).all()
    with pytest.raises(InputError, match="370, 555, 1110"):
        decoders.decode_middlebury_full_pixels(tmp_path / "disp1.png", (400, 2))


def test_masks(tmp_path):
    path = stored_file(tmp_path / "m.png", np.array([[0, 128, 255]], np.uint8))
    assert decoders.mask_is_255(path).tolist() == [[False, False, True]]
    assert decoders.mask_is_zero(path).tolist() == [[True, False, False]]
    none = stored_file(tmp_path / "none.png", np.zeros((1, 3), np.uint8))
    assert not decoders.mask_is_255(none).any()
    for values in (np.uint8([[0, 1, 1]]), np.uint8([[0, 128, 128]]), np.uint16([[0, 65535, 0]])):
        with pytest.raises(InputError, match=f"its largest value is {values.max()}"):
            decoders.mask_is_255(stored_file(tmp_path / "other.png", values))
    noc = stored_file(tmp_path / "noc.png", np.array([[0, 256, 65535]], np.uint16))
    assert decoders.mask_is_not_zero(noc).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    "decode",
    [
        decoders.decode_stored,
        decoders.decode_sintel,
        decoders.decode_vkitti2,
        decoders.decode_tartanair,
        decoders.decode_either_sign,
    ],
)
def test_damaged_files_are_named(tmp_path, decode):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG no")
    with pytest.raises(InputError, match=r"a\.png"):
        decode(path, ANY)


def test_grey_and_colour_are_distinguished(tmp_path):
    grey = stored_file(tmp_path / "grey.png", np.zeros((2, 2), np.uint8))
    colour = stored_file(tmp_path / "colour.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="RGB"):
        decoders.decode_sintel(grey, (2, 2))
    with pytest.raises(InputError, match="one channel"):
        decoders.decode_vkitti2(colour, (2, 2))


def test_decoders_are_picklable():
    for decode in (decoders.stored(100), decoders.decode_sintel, decoders.mask_is_255):
        pickle.loads(pickle.dumps(decode))


# folder of the real pair -> data set, options, left, right, disparity in the data set's own tree
REAL = {
    "ft3d/": (
        "flyingthings3d",
        "frames_finalpass/TEST/A/0000/left/0006",
        "frames_finalpass/TEST/A/0000/right/0006",
        "disparity/TEST/A/0000/left/0006",
    ),
    "kitti2012/": (
        "kitti2012",
        "training/colored_0/000000_10",
        "training/colored_1/000000_10",
        "training/disp_occ/000000_10",
    ),
    "kitti2015/": (
        "kitti2015",
        "training/image_2/000000_10",
        "training/image_3/000000_10",
        "training/disp_occ_0/000000_10",
    ),
    "mid2014/": ("middlebury2014", "A-perfect/im0", "A-perfect/im1", "A-perfect/disp0"),
    "mid2005third/": ("middlebury2005", "A/view1", "A/view5", "A/disp1"),
    "mid0506half/": ("middlebury2006", "A/view1", "A/view5", "A/disp1"),
    "mid2006/": ("middlebury2006", "A/view1", "A/view5", "A/disp1"),
    "mid2003/": ("middlebury2003", "A/im2", "A/im6", "A/disp2"),
    "mid2001/tsukuba": (
        "middlebury2001",
        "A/scene1.row3.col3",
        "A/scene1.row3.col4",
        "A/truedisp.row3.col3",
    ),
    "mid2001/": ("middlebury2001", "A/im2", "A/im6", "A/disp2"),
    "eth3d/": (
        "eth3d",
        "two_view_training/A/im0",
        "two_view_training/A/im1",
        "two_view_training_gt/A/disp0GT",
    ),
}


def test_real_files_decode_to_the_truth_through_their_own_data_set(tmp_path):
    entries = json.loads(shared("real/manifest.json").read_text())
    decoded = 0
    for index, entry in enumerate(entries):
        tree = next((REAL[start] for start in REAL if entry["name"].startswith(start)), None)
        if tree is None:
            assert entry["name"].startswith("scared")  # no data set of that name here
            continue
        name, *places = tree
        root = tmp_path / str(index)
        for role, place in zip(("left", "right", "disparity"), places, strict=True):
            source = shared(f"real/{entry[role]}")
            target = (root / place).with_name((root / place).name + source.suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        (sample,) = open_dataset(name, root).samples
        read = sample.read()
        gt = read_disparity(shared(f"real/{entry['gt']}"))
        np.testing.assert_array_equal(read.valid, np.isfinite(gt), err_msg=entry["name"])
        np.testing.assert_array_equal(
            read.disparity[read.valid], gt[read.valid], err_msg=entry["name"]
        )
        decoded += 1
    assert decoded == len(entries) - 1 == 20
