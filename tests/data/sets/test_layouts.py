"""Every tree of every data set, written small by literal path; pairs are matched by name."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stereo.data.sets.datasets import DATASETS, READERS, detect_dataset, open_dataset
from stereo.data.sets.layouts.benchmarks import KITTI2015_VALIDATION, MIDDLEBURY2014_TRAINING
from stereo.errors import InputError, UsageError

SHAPE = (4, 6)


def image(path, shade=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SHAPE[::-1], (shade, shade, shade)).save(path)


def picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def truth(path, height=SHAPE[0]):
    """Write a file of 2s in whatever the suffix stores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (height, SHAPE[1])
    if path.suffix == ".pfm":
        Image.fromarray(np.full(size, 2, np.float32)).save(path)
    elif path.suffix == ".npy":
        np.save(path, np.full(size, 40, np.float32))
    elif "frame_" in path.name and "disparities" in str(path):
        picture(path, np.full((*size, 3), (0, 128, 0), np.uint8))
    elif path.name.startswith(("disp", "truedisp")) and path.parent.parent.name != "x":
        picture(path, np.full(size, 16, np.uint8))
    else:
        picture(path, np.full(size, 512, np.uint16))


# name, options, left, right, disparity, optional files; "@" is what tells two pairs apart
TREES = {
    "folders": ("folders", {}, "left/@.jpg", "right/@.png", "disp/@.npy", {}),
    "folders-scenes": (
        "folders",
        {},
        "left/street/@.PNG",
        "right/street/@.PNG",
        "disp/street/@.pfm",
        {},
    ),
    "things": (
        "flyingthings3d",
        {"split": "test"},
        "FlyingThings3D/frames_finalpass/TEST/A/0000/left/@.png",
        "FlyingThings3D/frames_finalpass/TEST/A/0000/right/@.png",
        "FlyingThings3D/disparity/TEST/A/0000/left/@.pfm",
        {"disparity_right": "FlyingThings3D/disparity/TEST/A/0000/right/@.pfm"},
    ),
    "things-webp": (
        "flyingthings3d",
        {"split": "train", "render_pass": "clean"},
        "frames_cleanpass/TRAIN/C/0001/left/@.webp",
        "frames_cleanpass/TRAIN/C/0001/right/@.webp",
        "disparity/TRAIN/C/0001/left/@.pfm",
        {},
    ),
    "things-flat": (
        "flyingthings3d",
        {"split": "train", "render_pass": "clean"},
        "frames_cleanpass/TRAIN/A/0000/left/@.png",
        "frames_cleanpass/TRAIN/A/0000/right/@.png",
        "frames_disparity/TRAIN/A/0000/left/@.pfm",
        {"disparity_right": "frames_disparity/TRAIN/A/0000/right/@.pfm"},
    ),
    "things-subset": (
        "flyingthings3d",
        {"split": "test", "render_pass": "clean"},
        "FlyingThings3D_subset/val/image_clean/left/@.png",
        "FlyingThings3D_subset/val/image_clean/right/@.png",
        "FlyingThings3D_subset/val/disparity/left/@.pfm",
        {"nonoccluded": "FlyingThings3D_subset/val/disparity_occlusions/left/@.png"},
    ),
    "subset": (
        "flyingthings3d_subset",
        {"split": "train", "render_pass": "clean"},
        "train/image_clean/left/@.png",
        "train/image_clean/right/@.png",
        "train/disparity/left/@.pfm",
        {
            "disparity_right": "train/disparity/right/@.pfm",
            "nonoccluded": "train/disparity_occlusions/left/@.png",
        },
    ),
    "monkaa": (
        "monkaa",
        {},
        "Monkaa/frames_finalpass/family_x2/left/@.webp",
        "Monkaa/frames_finalpass/family_x2/right/@.webp",
        "Monkaa/disparity/family_x2/left/@.pfm",
        {"disparity_right": "Monkaa/disparity/family_x2/right/@.pfm"},
    ),
    "monkaa-flat": (
        "monkaa",
        {"render_pass": "clean"},
        "monkaa_frames_cleanpass/family_x2/left/@.png",
        "monkaa_frames_cleanpass/family_x2/right/@.png",
        "monkaa_disparity/family_x2/left/@.pfm",
        {},
    ),
    "monkaa-merged": (
        "monkaa",
        {},
        "frames_finalpass/TRAIN/family_x2/left/@.png",
        "frames_finalpass/TRAIN/family_x2/right/@.png",
        "disparity/TRAIN/family_x2/left/@.pfm",
        {},
    ),
    "driving": (
        "driving",
        {},
        "Driving/frames_finalpass/15mm_focallength/scene_backwards/fast/left/@.png",
        "Driving/frames_finalpass/15mm_focallength/scene_backwards/fast/right/@.png",
        "Driving/disparity/15mm_focallength/scene_backwards/fast/left/@.pfm",
        {},
    ),
    "driving-flat": (
        "driving",
        {"render_pass": "clean"},
        "driving_frames_cleanpass/35mm_focallength/scene_forwards/slow/left/@.png",
        "driving_frames_cleanpass/35mm_focallength/scene_forwards/slow/right/@.png",
        "driving_disparity/35mm_focallength/scene_forwards/slow/left/@.pfm",
        {},
    ),
    "driving-merged": (
        "driving",
        {},
        "frames_finalpass/TRAIN/15mm_focallength/scene_forwards/fast/left/@.png",
        "frames_finalpass/TRAIN/15mm_focallength/scene_forwards/fast/right/@.png",
        "disparity/TRAIN/15mm_focallength/scene_forwards/fast/left/@.pfm",
        {},
    ),
    "kitti2012": (
        "kitti2012",
        {},
        "training/colored_0/@_10.png",
        "training/colored_1/@_10.png",
        "training/disp_occ/@_10.png",
        {"nonoccluded": "training/disp_noc/@_10.png"},
    ),
    "kitti2012-grey": (
        "kitti2012",
        {},
        "training/image_0/@_10.png",
        "training/image_1/@_10.png",
        "training/disp_occ/@_10.png",
        {},
    ),
    "kitti2015": (
        "kitti2015",
        {},
        "training/image_2/@_10.png",
        "training/image_3/@_10.png",
        "training/disp_occ_0/@_10.png",
        {"nonoccluded": "training/disp_noc_0/@_10.png"},
    ),
    "middlebury2014": (
        "middlebury2014",
        {},
        "@-perfect/im0.png",
        "@-perfect/im1.png",
        "@-perfect/disp0.pfm",
        {"disparity_right": "@-perfect/disp1.pfm"},
    ),
    "middlebury2014-imperfect": (
        "middlebury2014",
        {},
        "train/@-imperfect/im0.png",
        "train/@-imperfect/im1.png",
        "train/@-imperfect/disp0.pfm",
        {},
    ),
    "middlebury2014-plain": ("middlebury2014", {}, "@/im0.png", "@/im1.png", "@/disp0.pfm", {}),
    "middlebury_v3": (
        "middlebury_v3",
        {},
        "MiddEval3/trainingQ/@/im0.png",
        "MiddEval3/trainingQ/@/im1.png",
        "MiddEval3/trainingQ/@/disp0GT.pfm",
        {
            "disparity_right": "MiddEval3/trainingQ/@/disp1GT.pfm",
            "nonoccluded": "MiddEval3/trainingQ/@/mask0nocc.png",
        },
    ),
    "eth3d": (
        "eth3d",
        {},
        "two_view_training/@/im0.png",
        "two_view_training/@/im1.png",
        "two_view_training_gt/@/disp0GT.pfm",
        {"nonoccluded": "two_view_training_gt/@/mask0nocc.png"},
    ),
    "eth3d-joined": (
        "eth3d",
        {},
        "two_view_training/@/im0.png",
        "two_view_training/@/im1.png",
        "two_view_training/@/disp0GT.pfm",
        {},
    ),
    "instereo2k": (
        "instereo2k",
        {"split": "train"},
        "train/@/left.png",
        "train/@/right.png",
        "train/@/left_disp.png",
        {"disparity_right": "train/@/right_disp.png"},
    ),
    "instereo2k-parts": (
        "instereo2k",
        {"split": "train"},
        "train/part1/@/left.png",
        "train/part1/@/right.png",
        "train/part1/@/left_disp.png",
        {},
    ),
    "sintel": (
        "sintel",
        {},
        "training/final_left/alley_1/frame_@.png",
        "training/final_right/alley_1/frame_@.png",
        "training/disparities/alley_1/frame_@.png",
        {},
    ),
    "crestereo": (
        "crestereo",
        {},
        "tree/@_left.jpg",
        "tree/@_right.jpg",
        "tree/@_left.disp.png",
        {"disparity_right": "tree/@_right.disp.png"},
    ),
    "crestereo-parts": (
        "crestereo",
        {},
        "tree/0/@_left.jpg",
        "tree/0/@_right.jpg",
        "tree/0/@_left.disp.png",
        {},
    ),
    "fallingthings": (
        "fallingthings",
        {},
        "single/cup/kitchen_0/@.left.jpg",
        "single/cup/kitchen_0/@.right.jpg",
        "single/cup/kitchen_0/@.left.depth.png",
        {
            "disparity_right": "single/cup/kitchen_0/@.right.depth.png",
            "settings": "single/cup/kitchen_0/_camera_settings.json",
        },
    ),
    "vkitti2": (
        "vkitti2",
        {},
        "Scene01/fog/frames/rgb/Camera_0/rgb_@.jpg",
        "Scene01/fog/frames/rgb/Camera_1/rgb_@.jpg",
        "Scene01/fog/frames/depth/Camera_0/depth_@.png",
        {"disparity_right": "Scene01/fog/frames/depth/Camera_1/depth_@.png"},
    ),
    "vkitti2-archives": (
        "vkitti2",
        {},
        "vkitti_2.0.3_rgb/Scene01/fog/frames/rgb/Camera_0/rgb_@.jpg",
        "vkitti_2.0.3_rgb/Scene01/fog/frames/rgb/Camera_1/rgb_@.jpg",
        "vkitti_2.0.3_depth/Scene01/fog/frames/depth/Camera_0/depth_@.png",
        {},
    ),
    "tartanair": (
        "tartanair",
        {},
        "office/Easy/P000/image_left/@_left.png",
        "office/Easy/P000/image_right/@_right.png",
        "office/Easy/P000/depth_left/@_left_depth.npy",
        {"disparity_right": "office/Easy/P000/depth_right/@_right_depth.npy"},
    ),
    "tartanair-nested": (
        "tartanair",
        {},
        "office/office/Hard/P001/image_left/@_left.png",
        "office/office/Hard/P001/image_right/@_right.png",
        "office/office/Hard/P001/depth_left/@_left_depth.npy",
        {},
    ),
    "middlebury2001": (
        "middlebury2001",
        {},
        "@/im2.ppm",
        "@/im6.ppm",
        "@/disp2.pgm",
        {"disparity_right": "@/disp6.pgm"},
    ),
    "tsukuba": (
        "middlebury2001",
        {},
        "@/scene1.row3.col3.ppm",
        "@/scene1.row3.col4.ppm",
        "@/truedisp.row3.col3.pgm",
        {},
    ),
}
FRAMES = ("000003", "000011", "000200")
# What `truth` comes to, by tree or data set, pixels; 2 of the others.
DECODED = {
    "folders": 40,
    "folders-scenes": 2,
    "instereo2k": 512 / 100,
    "crestereo": 512 / 32,
    "fallingthings": 10 * 600 / 512,
    "vkitti2": 725.0087 * 0.532725 / 5.12,
    "tsukuba": 16 / 16,
}


def write_tree(root, tree, frames=FRAMES):
    _, _, left, right, disparity, extras = TREES[tree]
    for shade, frame in enumerate(frames):
        image(root / left.replace("@", frame), 40 + shade)
        image(root / right.replace("@", frame), 90 + shade)
        truth(root / disparity.replace("@", frame))
        for role, path in extras.items():
            target = root / path.replace("@", frame)
            if role == "settings":
                target.parent.mkdir(parents=True, exist_ok=True)
                settings = {"camera_settings": [{"intrinsic_settings": {"fx": 10.0}}]}
                target.write_text(json.dumps(settings))
            elif role == "nonoccluded" and not target.parent.name.startswith("disp_noc"):
                picture(target, np.full(SHAPE, 255, np.uint8))
            else:
                truth(target)


@pytest.mark.parametrize("tree", TREES)
def test_each_tree_is_found_and_paired_by_name(tree, tmp_path):
    write_tree(tmp_path, tree)
    name, options, left, right, disparity, extras = TREES[tree]
    samples = open_dataset(name, tmp_path, **options).samples
    assert len(samples) == len({sample.name for sample in samples}) == len(FRAMES)
    for frame, sample in zip(FRAMES, samples, strict=True):
        found = [path.relative_to(tmp_path) for path in (sample.left, sample.right)]
        assert [str(path) for path in found] == [p.replace("@", frame) for p in (left, right)]
        assert str(sample.disparity.relative_to(tmp_path)) == disparity.replace("@", frame)
        for role, path in extras.items():
            if role == "settings":  # read by the decoder
                continue
            value = getattr(sample, role)
            value = value[0][0] if role == "nonoccluded" else value
            assert str(value.relative_to(tmp_path)) == path.replace("@", frame)
        read = sample.read(disparity_right=True, nonoccluded=True)
        assert read.disparity.shape == SHAPE
        assert read.valid.all()
        decoded = DECODED.get(tree, DECODED.get(name, 2))
        assert np.allclose(read.disparity, decoded)
        assert (read.disparity_right is not None) == ("disparity_right" in extras)
        if read.disparity_right is not None:
            assert np.allclose(read.disparity_right, decoded)
        assert (read.nonoccluded is not None) == ("nonoccluded" in extras)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("role", [2, 3, 4], ids=["left", "right", "disparity"])
def test_a_missing_file_is_named_and_never_shifts_the_pairs(tree, role, tmp_path):
    write_tree(tmp_path, tree)
    name, options = TREES[tree][:2]
    lost = tmp_path / TREES[tree][role].replace("@", FRAMES[1])
    lost.unlink()
    with pytest.raises(InputError, match=r"no such file.*is incomplete") as error:
        open_dataset(name, tmp_path, **options)
    assert str(lost.with_suffix("")) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scene_published_without_truth_is_skipped(tmp_path):
    for scene in ("Art", "Computer", "Dolls"):
        picture(tmp_path / scene / "view1.png", np.zeros((370, 6, 3), np.uint8))
        picture(tmp_path / scene / "view5.png", np.zeros((370, 6, 3), np.uint8))
    for scene in ("Art", "Dolls"):
        picture(tmp_path / scene / "disp1.png", np.full((370, 6), 30, np.uint8))
    samples = open_dataset("middlebury2005", tmp_path).samples
    assert [sample.name for sample in samples] == ["Art", "Dolls"]
    assert (samples[1].read().disparity == 10).all()
    assert [s.name for s in open_dataset("middlebury2006", tmp_path).samples] == ["Art", "Dolls"]


def test_exposures_of_a_scene_share_its_truth(tmp_path):
    for exposure in (0, 1):
        for view in (1, 5):
            path = tmp_path / "HalfSize/Aloe/Illum2" / f"Exp{exposure}" / f"view{view}.png"
            picture(path, np.zeros((555, 6, 3), np.uint8))
    for view, value in ((1, 30), (5, 40)):
        path = tmp_path / f"HalfSize/Aloe/disp{view}.png"
        picture(path, np.full((555, 6), value, np.uint8))
    samples = open_dataset("middlebury2006", tmp_path).samples
    assert [sample.name for sample in samples] == ["Aloe/Illum2/Exp0", "Aloe/Illum2/Exp1"]
    read = samples[1].read(disparity_right=True)
    assert (read.disparity == 15).all() and (read.disparity_right == 20).all()


def test_quarter_size_of_middlebury_2003(tmp_path):
    for name in ("im2", "im6"):
        picture(tmp_path / "teddy" / f"{name}.png", np.zeros((375, 6, 3), np.uint8))
    picture(tmp_path / "teddy/disp2.png", np.full((375, 6), 30, np.uint8))
    picture(tmp_path / "teddy/disp6.png", np.full((375, 6), 40, np.uint8))
    read = open_dataset("middlebury2003", tmp_path).samples[0].read(disparity_right=True)
    assert (read.disparity == 7.5).all() and (read.disparity_right == 10).all()
    with pytest.raises(InputError, match="name that data set"):
        open_dataset("middlebury2001", tmp_path).samples[0].read()


def test_two_sizes_of_the_same_scenes_need_a_choice(tmp_path):
    write_tree(tmp_path, "middlebury_v3", ["Piano"])
    shutil.copytree(tmp_path / "MiddEval3/trainingQ", tmp_path / "MiddEval3/trainingH")
    with pytest.raises(InputError, match="several layouts: H, Q; choose with --layout"):
        open_dataset("middlebury_v3", tmp_path)
    data = open_dataset("middlebury_v3", tmp_path, layout="Q")
    assert (data.layout, "trainingQ" in str(data.samples[0].left)) == ("Q", True)


def test_the_whole_of_scene_flow_in_one_merged_tree(tmp_path):
    for below in ("A/0000", "family_x2", "15mm_focallength/scene_forwards/fast"):
        for side in ("left", "right"):
            image(tmp_path / f"frames_finalpass/TRAIN/{below}/{side}/0006.png")
        truth(tmp_path / f"disparity/TRAIN/{below}/left/0006.pfm")
    for options in ({}, {"layout": "merged"}):
        data = open_dataset("sceneflow", tmp_path, split="train", **options)
        assert [sample.name for sample in data.samples] == [
            "FlyingThings3D/TRAIN/A/0000/0006",
            "Monkaa/family_x2/0006",
            "Driving/15mm_focallength/scene_forwards/fast/0006",
        ]
    for name in ("flyingthings3d", "monkaa", "driving"):
        assert len(open_dataset(name, tmp_path, split="train").samples) == 1
    assert detect_dataset(tmp_path) == "sceneflow"
    shutil.rmtree(tmp_path / "disparity/TRAIN/15mm_focallength")  # not downloaded yet
    shutil.rmtree(tmp_path / "frames_finalpass/TRAIN/15mm_focallength")
    assert detect_dataset(tmp_path) == "sceneflow"
    shutil.rmtree(tmp_path / "frames_finalpass/TRAIN/family_x2")
    shutil.rmtree(tmp_path / "disparity/TRAIN/family_x2")
    assert detect_dataset(tmp_path) == "flyingthings3d"


def test_the_subset_stores_the_left_view_negative(tmp_path):
    write_tree(tmp_path, "subset", ["0000000"])
    stored = np.full(SHAPE, -3.5, np.float32)
    stored[0, 0] = 2.0
    Image.fromarray(stored).save(tmp_path / "train/disparity/left/0000000.pfm")
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 1] = 255
    picture(tmp_path / "train/disparity_occlusions/left/0000000.png", mask)
    options = {"split": "train", "render_pass": "clean"}
    sample = open_dataset("flyingthings3d_subset", tmp_path, **options).samples[0]
    read = sample.read(disparity_right=True, nonoccluded=True)
    assert (read.disparity.ravel()[1:] == 3.5).all()
    assert read.disparity[0, 0] == -2.0  # a mistake stays visible
    assert (read.disparity_right == 2).all()
    assert np.argwhere(~read.nonoccluded).tolist() == [[1, 1]]


def test_kitti_2015_uses_only_the_first_frame(tmp_path):
    write_tree(tmp_path, "kitti2015")
    for view in ("image_2", "image_3"):
        image(tmp_path / "training" / view / "000003_11.png")
    assert len(open_dataset("kitti2015", tmp_path).samples) == len(FRAMES)


def test_kitti_2015_splits_are_psmnets(tmp_path):
    assert (len(KITTI2015_VALIDATION), sum(KITTI2015_VALIDATION)) == (40, 4230)
    write_tree(tmp_path, "kitti2015", ["000000", "000001", "000002", "000196", "000199"])
    chosen = {
        split: [sample.name for sample in open_dataset("kitti2015", tmp_path, split=split).samples]
        for split in ("train", "val")
    }
    assert chosen["val"] == ["000001_10", "000196_10"]
    assert chosen["train"] == ["000000_10", "000002_10", "000199_10"]


def test_middlebury_2014_splits_are_by_scene(tmp_path):
    assert len(MIDDLEBURY2014_TRAINING) == 10
    write_tree(tmp_path, "middlebury2014", ["Piano", "Sword1"])
    for split, names in (("all", ["Piano", "Sword1"]), ("train", ["Piano"])):
        assert [
            s.name for s in open_dataset("middlebury2014", tmp_path, split=split).samples
        ] == names
    assert open_dataset("middlebury2014", tmp_path, split="additional").samples[0].name == "Sword1"


def test_a_test_split_has_no_truth_and_cannot_be_scored(stereo, tmp_path):
    for view in ("image_2", "image_3"):
        image(tmp_path / "testing" / view / "000000_10.png")
    sample = open_dataset("kitti2015", tmp_path, split="test").samples[0]
    assert sample.read().disparity is None
    options = ("--root", tmp_path, "--output", tmp_path / "out", "--split", "test")
    result = stereo("evaluate", "--dataset", "kitti2015", *options)
    assert (result.status, len(result.errors)) == (2, 1)
    assert "no ground truth" in result.errors[0]


def test_sintels_occluded_pixels_stay_valid_and_are_masked_on_request(tmp_path):
    write_tree(tmp_path, "sintel", ["0001"])
    masks = {"occlusions": (0, 0), "outofframe": (1, 1)}
    for folder, pixel in masks.items():
        mask = np.zeros(SHAPE, np.uint8)
        mask[pixel] = 255
        picture(tmp_path / f"training/{folder}/alley_1/frame_0001.png", mask)
    read = open_dataset("sintel", tmp_path).samples[0].read(nonoccluded=True)
    assert read.valid.all()
    assert np.argwhere(~read.nonoccluded).tolist() == [[0, 0], [1, 1]]
    (tmp_path / "training/outofframe/alley_1/frame_0001.png").unlink()
    (halved,) = open_dataset("sintel", tmp_path).samples  # half of a mask calls hidden pixels seen
    assert halved.read(nonoccluded=True).nonoccluded is None


def test_only_requested_files_are_opened(tmp_path):
    write_tree(tmp_path, "subset")
    for folder in ("disparity/left", "disparity/right", "disparity_occlusions/left"):
        for path in (tmp_path / "train" / folder).iterdir():
            path.write_bytes(b"damaged")
    options = {"split": "train", "render_pass": "clean"}
    sample = open_dataset("flyingthings3d_subset", tmp_path, **options).samples[0]
    assert sample.read(disparity=False).disparity is None
    for role in ("disparity", "disparity_right", "nonoccluded"):
        with pytest.raises(InputError):
            sample.read(**({"disparity": False} | {role: True}))


def test_a_left_only_download_is_complete(tmp_path):
    write_tree(tmp_path, "things")
    shutil.rmtree(tmp_path / "FlyingThings3D/disparity/TEST/A/0000/right")
    sample = open_dataset("flyingthings3d", tmp_path).samples[0]
    assert sample.disparity_right is None
    assert sample.read(disparity_right=True).valid_right is None


def test_hidden_files_are_skipped_and_png_is_preferred_to_webp(tmp_path):
    write_tree(tmp_path, "things")
    folder = tmp_path / "FlyingThings3D/frames_finalpass/TEST/A/0000/left"
    (folder / "._000003.png").write_bytes(b"")
    image(folder / "000003.webp")
    samples = open_dataset("flyingthings3d", tmp_path).samples
    assert [sample.left.name for sample in samples] == [f"{frame}.png" for frame in FRAMES]


def test_the_list_of_unusable_frames_is_used_only_when_named(tmp_path):
    write_tree(tmp_path, "things")
    listed = tmp_path / "all_unused_files.txt"
    listed.write_text("TEST/A/0000/left/000003.png\nTEST/A/0000/right/000200.png\n\n")
    assert len(open_dataset("flyingthings3d", tmp_path).samples) == 3
    data = open_dataset("flyingthings3d", tmp_path, unused=listed)
    assert [sample.left.stem for sample in data.samples] == ["000011"]


@pytest.mark.parametrize("text", ["000003.png\n", "\xff\xfe", ""])
def test_a_malformed_list_is_refused(tmp_path, text):
    write_tree(tmp_path, "things")
    listed = tmp_path / "list.txt"
    listed.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"list\.txt"):
        open_dataset("flyingthings3d", tmp_path, unused=listed)


def test_the_list_does_not_apply_to_the_subset_or_other_data(tmp_path):
    write_tree(tmp_path, "things-subset")
    write_tree(tmp_path, "kitti2015")
    listed = tmp_path / "list.txt"
    listed.write_text("TEST/A/0000/left/0006.png\n")
    with pytest.raises(UsageError, match="full FlyingThings3D"):
        open_dataset("flyingthings3d", tmp_path, render_pass="clean", unused=listed)
    with pytest.raises(UsageError, match="does not apply to 'kitti2015'"):
        open_dataset("kitti2015", tmp_path, unused=listed)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - set(READERS)))
def test_a_folder_without_the_data_gets_one_line_with_expected_and_found(name, tmp_path):
    (tmp_path / "something_else").mkdir()
    with pytest.raises(InputError) as error:
        open_dataset(name, tmp_path)
    line = str(error.value)
    assert "\n" not in line
    for word in (str(tmp_path), "expected", "found something_else", "datasets/README.md"):
        assert word in line


@pytest.mark.parametrize("tree", TREES)
def test_the_data_set_is_detected(tree, tmp_path):
    write_tree(tmp_path, tree)
    assert_detected = TREES[tree][0]
    if assert_detected == "middlebury2001" and tree != "tsukuba":
        with pytest.raises(InputError, match="middlebury2001, middlebury2003"):
            detect_dataset(tmp_path)  # their trees are the same
        return
    if tree == "subset":
        assert_detected = "flyingthings3d"
    assert detect_dataset(tmp_path) == assert_detected


@pytest.mark.parametrize("choice", [{"split": "x"}, {"layout": "x"}, {"render_pass": "clean"}])
def test_choices_that_a_data_set_lacks_are_usage_errors(choice, tmp_path):
    write_tree(tmp_path, "kitti2015")
    with pytest.raises(UsageError):
        open_dataset("kitti2015", tmp_path, **choice)
