"""Scene Flow: FlyingThings3D, Monkaa and Driving, in their usual trees."""

from stereo.data.io.decoders import MaskReader, decode_either_sign, mask_is_255, mask_is_zero
from stereo.data.sets.layouts.description import Description, Layout, Part, Split
from stereo.data.sets.patterns import Fields

_PASSES = ("final", "clean")
SYNTHETIC, SYNTHETIC_NOTE = "synthetic", "synthetic.json"
"""The name of rendered scenes, and the file that says what a folder of them holds."""

_THINGS = {
    "test": Split("TEST", 4370, ("letter", {"A": 1440, "B": 1470, "C": 1460})),
    "train": Split("TRAIN", 22390, ("letter", {"A": 7460, "B": 7460, "C": 7470})),
}
_MONKAA = {"train": Split("TRAIN", 8664)}
_DRIVING = {"train": Split("TRAIN", 4400)}
_RENDERED = {"train": Split("TRAIN"), "test": Split("TEST")}
_SUBSET = {"test": Split("val"), "train": Split("train", 21818)}

_THINGS_BELOW = "<split>/<letter>/<scene>"
_MONKAA_BELOW = "<scene>"
_DRIVING_BELOW = "<focal>_focallength/scene_<direction>/<speed>"


def _monkaa_place(fields: Fields) -> str:
    """Return ``Monkaa/lonetree/0048`` for ``lonetree_winter_x2``: one scene, other paint."""
    return f"Monkaa/{fields['scene'].partition('_')[0]}/{fields['frame']}"


_PLACES = {"Monkaa": _monkaa_place, "Driving": lambda _: "Driving"}  # which is one street


def _layout(
    name: str,
    frames: str,
    disparity: str,
    below: str,
    splits: dict[str, Split],
    title: str,
    nonoccluded: tuple[tuple[str, MaskReader], ...] = (),
) -> Layout:
    """Describe the form that all full trees share; ``frames`` holds ``<pass>``."""
    return Layout(
        name,
        f"{title}/{below}/<frame>",
        splits,
        left=f"{frames}/{below}/left/<frame>.{{png,webp}}",
        right=f"{frames}/{below}/right/<frame>.{{png,webp}}",
        disparity=f"{disparity}/{below}/left/<frame>.pfm",
        disparity_right=f"{disparity}/{below}/right/<frame>.pfm",
        nonoccluded=nonoccluded,
        subject=_PLACES.get(title),
        folders=() if name == "official" else ("", "SceneFlow"),
        zero_is_missing=False,
        dense=True,
    )


def _subset(splits: dict[str, Split]) -> Layout:
    return Layout(
        "subset",
        "FlyingThings3D_subset/<split>/<frame>",
        splits,
        left="<split>/image_<pass>/left/<frame>.{png,webp}",
        right="<split>/image_<pass>/right/<frame>.{png,webp}",
        disparity="<split>/disparity/left/<frame>.pfm",
        disparity_right="<split>/disparity/right/<frame>.pfm",
        folders=("FlyingThings3D_subset", "SceneFlow/FlyingThings3D_subset", ""),
        nonoccluded=(("<split>/disparity_occlusions/left/<frame>.png", mask_is_zero),),
        decode=decode_either_sign,
        zero_is_missing=False,
        dense=True,
    )


_FRAMES, _MERGED = "frames_<pass>pass", "frames_<pass>pass/<split>"

_THINGS_PART = Part(
    "FlyingThings3D",
    ("FlyingThings3D", "SceneFlow/FlyingThings3D", ""),
    (
        _layout("official", _FRAMES, "disparity", _THINGS_BELOW, _THINGS, "FlyingThings3D"),
        _layout("flat", _FRAMES, "frames_disparity", _THINGS_BELOW, _THINGS, "FlyingThings3D"),
        _subset(_SUBSET),
    ),
    unused_name="<split>/<letter>/<scene>/<view>/<frame>",
)
_SUBSET_PART = Part(
    "FlyingThings3D_subset",
    ("FlyingThings3D_subset", "SceneFlow/FlyingThings3D_subset", ""),
    (_subset({"val": _SUBSET["test"], "train": _SUBSET["train"]}),),
)
_MONKAA_PART = Part(
    "Monkaa",
    ("Monkaa", "SceneFlow/Monkaa", ""),
    (
        _layout("official", _FRAMES, "disparity", _MONKAA_BELOW, _MONKAA, "Monkaa"),
        _layout("flat", f"monkaa_{_FRAMES}", "monkaa_disparity", _MONKAA_BELOW, _MONKAA, "Monkaa"),
        _layout("merged", _MERGED, "disparity/<split>", _MONKAA_BELOW, _MONKAA, "Monkaa"),
    ),
)
_DRIVING_PART = Part(
    "Driving",
    ("Driving", "SceneFlow/Driving", ""),
    (
        _layout("official", _FRAMES, "disparity", _DRIVING_BELOW, _DRIVING, "Driving"),
        _layout(
            "flat", f"driving_{_FRAMES}", "driving_disparity", _DRIVING_BELOW, _DRIVING, "Driving"
        ),
        _layout("merged", _MERGED, "disparity/<split>", _DRIVING_BELOW, _DRIVING, "Driving"),
    ),
)

SCENEFLOW = {
    "sceneflow": Description(
        "Scene Flow, rendered: FlyingThings3D, Monkaa and Driving",
        (_THINGS_PART, _MONKAA_PART, _DRIVING_PART),
        "test",
        _PASSES,
    ),
    "flyingthings3d": Description(
        "FlyingThings3D of Scene Flow, full or subset", (_THINGS_PART,), "test", _PASSES
    ),
    "flyingthings3d_subset": Description(
        "the subset of FlyingThings3D, with occlusion masks", (_SUBSET_PART,), "val", _PASSES
    ),
    "monkaa": Description("Monkaa of Scene Flow", (_MONKAA_PART,), "train", _PASSES),
    "driving": Description("Driving of Scene Flow", (_DRIVING_PART,), "train", _PASSES),
    SYNTHETIC: Description(
        "rendered scenes: a folder of 'stereo data synthesize', or on the spot without --root",
        (
            Part(
                "rendered scenes",
                ("FlyingThings3D",),
                (
                    _layout(
                        *("official", _FRAMES, "disparity", _THINGS_BELOW, _RENDERED, SYNTHETIC),
                        ((f"nonoccluded/{_THINGS_BELOW}/left/<frame>.png", mask_is_255),),
                    ),
                ),
            ),
        ),
        "train",
        _PASSES,
    ),
}
