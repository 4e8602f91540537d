"""Rendered data other than Scene Flow: Sintel, CREStereo, Falling Things, VKITTI 2, TartanAir."""

from collections.abc import Callable

from stereo.data.io.decoders import (
    decode_falling_things,
    decode_sintel,
    decode_tartanair,
    decode_vkitti2,
    mask_is_zero,
    stored,
)
from stereo.data.sets.layouts.description import Description, Layout, Part, Split
from stereo.data.sets.patterns import Fields


def _at(place: str) -> Callable[[Fields], str]:
    """Return what names a frame by its place, whatever else its path says."""
    return lambda fields: f"{fields[place]}/{fields['frame']}"


_SINTEL = Layout(
    "official",
    "<scene>/<frame>",
    {"train": Split("training")},
    left="<split>/<pass>_left/<scene>/<frame>.png",
    right="<split>/<pass>_right/<scene>/<frame>.png",
    disparity="<split>/disparities/<scene>/<frame>.png",
    # `alley_1` and `alley_2` are two shots of one place.
    subject=lambda fields: f"{fields['scene'].rstrip('_0123456789')}/{fields['frame']}",
    nonoccluded=(
        ("<split>/occlusions/<scene>/<frame>.png", mask_is_zero),
        ("<split>/outofframe/<scene>/<frame>.png", mask_is_zero),
    ),
    decode=decode_sintel,
    zero_is_missing=False,
    dense=True,
)


def _crestereo(name: str, folder: str) -> Layout:
    return Layout(
        name,
        f"{folder}/<frame>",
        {"train": Split()},
        left=f"{folder}/<frame>_left.{{jpg,png}}",
        right=f"{folder}/<frame>_right.{{jpg,png}}",
        disparity=f"{folder}/<frame>_left.disp.png",
        disparity_right=f"{folder}/<frame>_right.disp.png",
        decode=stored(32),
    )


def _falling_things(kind: str, folder: str) -> Part:
    layout = Layout(
        "official",
        f"{folder}/<frame>",
        {"all": Split(), kind: Split()},
        left=f"{folder}/<frame>.left.{{jpg,png}}",
        right=f"{folder}/<frame>.right.{{jpg,png}}",
        disparity=f"{folder}/<frame>.left.depth.png",
        disparity_right=f"{folder}/<frame>.right.depth.png",
        subject=_at("scene"),
        decode=decode_falling_things,
    )
    folders = ("", "FallingThings", "fat")
    return Part(f"Falling Things ({kind})", folders, (layout,), optional=True)


def _vkitti2(name: str, rgb: str, depth: str) -> Layout:
    below = "<scene>/<weather>"
    return Layout(
        name,
        f"{below}/<frame>",
        {"train": Split()},
        left=f"{rgb}{below}/frames/rgb/Camera_0/rgb_<frame>.{{jpg,png}}",
        right=f"{rgb}{below}/frames/rgb/Camera_1/rgb_<frame>.{{jpg,png}}",
        disparity=f"{depth}{below}/frames/depth/Camera_0/depth_<frame>.png",
        disparity_right=f"{depth}{below}/frames/depth/Camera_1/depth_<frame>.png",
        subject=_at("scene"),
        decode=decode_vkitti2,
    )


def _tartanair(name: str, folder: str) -> Layout:
    return Layout(
        name,
        f"{folder}/<frame>",
        {"train": Split()},
        left=f"{folder}/image_left/<frame>_left.png",
        right=f"{folder}/image_right/<frame>_right.png",
        disparity=f"{folder}/depth_left/<frame>_left_depth.npy",
        disparity_right=f"{folder}/depth_right/<frame>_right_depth.npy",
        subject=_at("scene"),
        decode=decode_tartanair,
        zero_is_missing=False,
    )


RENDERED = {
    "sintel": Description(
        "Sintel stereo", (Part("Sintel", ("", "Sintel"), (_SINTEL,)),), "train", ("final", "clean")
    ),
    "crestereo": Description(
        "CREStereo's rendered pairs",
        (
            Part(
                "CREStereo",
                ("", "CREStereo"),
                (_crestereo("official", "<kind>"), _crestereo("parts", "<kind>/<part>")),
            ),
        ),
        "train",
    ),
    "fallingthings": Description(
        "Falling Things, household objects",
        (
            _falling_things("single", "single/<object>/<scene>"),
            _falling_things("mixed", "mixed/<scene>"),
        ),
        "all",
    ),
    "vkitti2": Description(
        "Virtual KITTI 2",
        (
            Part(
                "Virtual KITTI 2",
                ("", "VKITTI2", "vkitti2"),
                (
                    _vkitti2("joined", "", ""),
                    _vkitti2(
                        "archives",
                        "vkitti_<version>_rgb/",
                        "vkitti_<version>_depth/",
                    ),
                ),
            ),
        ),
        "train",
    ),
    "tartanair": Description(
        "TartanAir",
        (
            Part(
                "TartanAir",
                ("", "TartanAir"),
                (
                    _tartanair("official", "<scene>/<level>/<path>"),
                    _tartanair("nested", "<scene>/<inner>/<level>/<path>"),
                ),
            ),
        ),
        "train",
    ),
}
