"""The user's own pairs in three folders: ``left/ right/ disp/``, matched by name."""

from stereo.data.io.disparities import DISPARITY_SUFFIXES
from stereo.data.io.images import IMAGE_SUFFIXES
from stereo.data.sets.layouts.description import Description, Layout, Part, Split

FOLDERS = "folders"
_FLOATS = (".pfm", ".npy", ".npz", ".tiff", ".tif")  # first: a PNG beside them is to look at


def _any_of(first: tuple[str, ...], suffixes: frozenset[str]) -> str:
    ordered = [*first, *sorted(suffixes.difference(first))]
    return ",".join(text for each in ordered for text in (each[1:], each[1:].upper()))


def _folders(name: str, below: str) -> Layout:
    picture = f"{{{_any_of(('.png', '.jpg'), IMAGE_SUFFIXES)}}}"
    return Layout(
        name,
        below,
        {"all": Split()},
        left=f"left/{below}.{picture}",
        right=f"right/{below}.{picture}",
        disparity=f"disp/{below}.{{{_any_of(_FLOATS, DISPARITY_SUFFIXES)}}}",
    )


OWN = {
    FOLDERS: Description(
        "your own pairs, in ROOT/left, ROOT/right and ROOT/disp, matched by name",
        (
            Part(
                "three folders",
                ("",),
                (_folders("flat", "<frame>"), _folders("scenes", "<scene>/<frame>")),
                one_layout_only=True,
            ),
        ),
        "all",
    )
}
