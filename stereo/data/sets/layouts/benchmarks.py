"""Photographs with measured ground truth: KITTI, Middlebury, ETH3D, InStereo2K."""

import operator
import re

from stereo.data.io.decoders import (
    decode_middlebury_2001,
    decode_middlebury_2003,
    decode_middlebury_full_pixels,
    mask_is_255,
    mask_is_not_zero,
    stored,
)
from stereo.data.sets.layouts.description import Description, Layout, Part, Split
from stereo.data.sets.patterns import Fields

# PSMNet's author gave these 40 of the 200 training pairs as his validation list (issue 73 there).
KITTI2015_VALIDATION = frozenset(
    (
        *(1, 3, 6, 20, 26, 35, 38, 41, 43, 44, 49, 60, 67, 70, 81, 84, 89, 97, 109, 119),
        *(122, 123, 129, 130, 132, 134, 141, 144, 152, 158, 159, 165, 171, 174, 179, 182),
        *(184, 186, 187, 196),
    )
)
# The 10 scenes of the Middlebury 2014 training set; the other 13 are the additional ones.
MIDDLEBURY2014_TRAINING = frozenset(
    (
        *("Adirondack", "Jadeplant", "Motorcycle", "Piano", "Pipes"),
        *("Playroom", "Playtable", "Recycle", "Shelves", "Vintage"),
    )
)


def _is_kitti_validation(fields: Fields) -> bool:
    return fields["frame"].isdigit() and int(fields["frame"]) in KITTI2015_VALIDATION


def _is_kitti_training(fields: Fields) -> bool:
    return not _is_kitti_validation(fields)


def _is_training_scene(fields: Fields) -> bool:
    return fields["scene"] in MIDDLEBURY2014_TRAINING


def _is_additional_scene(fields: Fields) -> bool:
    return fields["scene"] not in MIDDLEBURY2014_TRAINING and _is_plain_scene(fields)


def _is_plain_scene(fields: Fields) -> bool:
    return not fields["scene"].endswith(("-perfect", "-imperfect"))


def _kitti(
    name: str, views: tuple[str, str], occ: str, noc: str, splits: dict[str, Split]
) -> Layout:
    """Describe a KITTI tree; only the first of a scene's two frames, ``_10``, is for stereo.

    The default decoder reads its 16-bit PNG: value / 256 (``disparities.PNG16_SCALE``), 0 for none.
    """
    return Layout(
        name,
        "<frame>_10",
        splits,
        left=f"<split>/{views[0]}/<frame>_10.png",
        right=f"<split>/{views[1]}/<frame>_10.png",
        disparity=f"<split>/{occ}/<frame>_10.png",
        nonoccluded=((f"<split>/{noc}/<frame>_10.png", mask_is_not_zero),),
    )


_KITTI2012 = {"train": Split("training"), "test": Split("testing", has_truth=False)}
_KITTI2015 = {
    "all": Split("training", 200),
    "train": Split("training", 160, keep=_is_kitti_training),
    "val": Split("training", 40, keep=_is_kitti_validation),
    "test": Split("testing", has_truth=False),
}


def _middlebury2014(name: str, folder: str) -> Layout:
    return Layout(
        name,
        "<scene>",
        {
            "all": Split(count=23, keep=_is_plain_scene),
            "train": Split(count=10, keep=_is_training_scene),
            "additional": Split(count=13, keep=_is_additional_scene),
        },
        left=f"{folder}/im0.png",
        right=f"{folder}/im1.png",
        disparity=f"{folder}/disp0.pfm",
        disparity_right=f"{folder}/disp1.pfm",
    )


def _middlebury_v3(size: str) -> Layout:
    return Layout(
        size,
        "<scene>",
        {"train": Split("training", 15), "test": Split("test", 15, has_truth=False)},
        left=f"<split>{size}/<scene>/im0.png",
        right=f"<split>{size}/<scene>/im1.png",
        disparity=f"<split>{size}/<scene>/disp0GT.pfm",
        disparity_right=f"<split>{size}/<scene>/disp1GT.pfm",
        nonoccluded=((f"<split>{size}/<scene>/mask0nocc.png", mask_is_255),),
    )


def _middlebury_2005(name: str, folder: str, views: str, sample_name: str) -> Layout:
    """Describe a size of Middlebury 2005 or 2006; some scenes are published without truth."""
    return Layout(
        name,
        sample_name,
        {"train": Split()},
        left=f"{folder}{views}/view1.{{png,jpg,ppm}}",
        right=f"{folder}{views}/view5.{{png,jpg,ppm}}",
        disparity=f"{folder}<scene>/disp1.png",
        disparity_right=f"{folder}<scene>/disp5.png",
        subject=operator.itemgetter("scene"),
        decode=decode_middlebury_full_pixels,
        truth_is_partial=True,
    )


_MIDDLEBURY_2005_LAYOUTS = tuple(
    _middlebury_2005(f"{size}{suffix}", folder, views, sample_name)
    for size, folder in (
        ("", ""),
        ("full", "FullSize/"),
        ("half", "HalfSize/"),
        ("third", "ThirdSize/"),
    )
    for suffix, views, sample_name in (
        ("scenes" if not size else "", "<scene>", "<scene>"),
        (
            "exposures" if not size else "-exposures",
            "<scene>/Illum<light>/Exp<exposure>",
            "<scene>/Illum<light>/Exp<exposure>",
        ),
    )
)

_MIDDLEBURY_2003 = Layout(
    "quarter",
    "<scene>",
    {"train": Split()},
    left="<scene>/im2.{png,ppm}",
    right="<scene>/im6.{png,ppm}",
    disparity="<scene>/disp2.{png,pgm}",
    disparity_right="<scene>/disp6.{png,pgm}",
    decode=decode_middlebury_2003,
)
_MIDDLEBURY_2001 = Layout(
    "scenes",
    "<scene>",
    {"train": Split()},
    left="<scene>/im2.{ppm,png}",
    right="<scene>/im6.{ppm,png}",
    disparity="<scene>/disp2.{pgm,png}",
    disparity_right="<scene>/disp6.{pgm,png}",
    decode=decode_middlebury_2001,
)
_TSUKUBA = Layout(
    "scenes",
    "<scene>",
    {"train": Split()},
    left="<scene>/scene1.row3.col3.{ppm,png}",
    right="<scene>/scene1.row3.col4.{ppm,png}",
    disparity="<scene>/truedisp.row3.col3.{pgm,png}",
    decode=stored(16),
)


def _eth3d_place(fields: Fields) -> str:
    """Return ``terrains`` for ``terrains_1l`` and ``terrains_2s``: two views, two crops of each."""
    return re.sub(r"_\d+[ls]$", "", fields["scene"])


def _eth3d(name: str, truth: str) -> Layout:
    return Layout(
        name,
        "<scene>",
        {
            "train": Split("two_view_training", 27),
            "test": Split("two_view_{test,testing}", 20, has_truth=False),
        },
        left="<split>/<scene>/im0.png",
        right="<split>/<scene>/im1.png",
        disparity=f"{truth}/<scene>/disp0GT.pfm",
        subject=_eth3d_place,
        nonoccluded=((f"{truth}/<scene>/mask0nocc.png", mask_is_255),),
    )


def _instereo2k(name: str, folder: str, sample_name: str) -> Layout:
    return Layout(
        name,
        sample_name,
        {"test": Split("test"), "train": Split("train")},
        left=f"<split>/{folder}/left.png",
        right=f"<split>/{folder}/right.png",
        disparity=f"<split>/{folder}/left_disp.png",
        disparity_right=f"<split>/{folder}/right_disp.png",
        decode=stored(100),
    )


_KITTI2012_PART = Part(
    "KITTI 2012",
    ("", "kitti2012", "Kitti2012", "KITTI2012", "data_stereo_flow"),
    (
        _kitti("colour", ("colored_0", "colored_1"), "disp_occ", "disp_noc", _KITTI2012),
        _kitti("grey", ("image_0", "image_1"), "disp_occ", "disp_noc", _KITTI2012),
    ),
)
_KITTI2015_PART = Part(
    "KITTI 2015",
    ("", "kitti2015", "Kitti2015", "KITTI2015", "data_scene_flow"),
    (_kitti("official", ("image_2", "image_3"), "disp_occ_0", "disp_noc_0", _KITTI2015),),
)

BENCHMARKS = {
    "kitti2012": Description("KITTI 2012, driving", (_KITTI2012_PART,), "train"),
    "kitti2015": Description(
        "KITTI 2015, driving; val is the list of PSMNet's author", (_KITTI2015_PART,), "all"
    ),
    "middlebury2001": Description(
        "Middlebury 2001, planar scenes and Tsukuba",
        (
            Part("Middlebury 2001", ("",), (_MIDDLEBURY_2001,), optional=True),
            Part("Tsukuba", ("",), (_TSUKUBA,), optional=True),
        ),
        "train",
    ),
    "middlebury2003": Description(
        "Middlebury 2003 at quarter size",
        (Part("Middlebury 2003", ("",), (_MIDDLEBURY_2003,)),),
        "train",
    ),
    "middlebury2005": Description(
        "Middlebury 2005, any size",
        (Part("Middlebury 2005", ("",), _MIDDLEBURY_2005_LAYOUTS, one_layout_only=True),),
        "train",
    ),
    "middlebury2006": Description(
        "Middlebury 2006, any size",
        (Part("Middlebury 2006", ("",), _MIDDLEBURY_2005_LAYOUTS, one_layout_only=True),),
        "train",
    ),
    "middlebury2014": Description(
        "Middlebury 2014, indoor scenes",
        (
            Part(
                "Middlebury 2014",
                ("", "Middlebury2014"),
                (
                    _middlebury2014("perfect", "{,train/,additional/}<scene>-perfect"),
                    _middlebury2014("imperfect", "{,train/,additional/}<scene>-imperfect"),
                    _middlebury2014("plain", "{,train/,additional/}<scene>"),
                ),
            ),
        ),
        "all",
    ),
    "middlebury_v3": Description(
        "Middlebury v3, the benchmark (MiddEval3)",
        (
            Part(
                "Middlebury v3",
                ("", "MiddEval3", "Middlebury/MiddEval3"),
                tuple(map(_middlebury_v3, "FHQ")),
                one_layout_only=True,
            ),
        ),
        "train",
    ),
    "eth3d": Description(
        "ETH3D two-view",
        (
            Part(
                "ETH3D",
                ("", "ETH3D"),
                (_eth3d("official", "<split>_gt"), _eth3d("joined", "<split>")),
            ),
        ),
        "train",
    ),
    "instereo2k": Description(
        "InStereo2K, indoor scenes",
        (
            Part(
                "InStereo2K",
                ("", "InStereo2k", "InStereo2K"),
                (
                    _instereo2k("scenes", "<scene>", "<split>/<scene>"),
                    _instereo2k("parts", "<part>/<scene>", "<split>/<part>/<scene>"),
                ),
            ),
        ),
        "test",
    ),
}
