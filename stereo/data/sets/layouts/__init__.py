"""The data sets: their directory trees and how their files are read."""

from stereo.data.sets.layouts.benchmarks import BENCHMARKS
from stereo.data.sets.layouts.description import Description, Layout, Part, Split
from stereo.data.sets.layouts.rendered import RENDERED
from stereo.data.sets.layouts.sceneflow import SCENEFLOW, SYNTHETIC, SYNTHETIC_NOTE
from stereo.data.sets.layouts.user_folders import FOLDERS, OWN

DESCRIPTIONS: dict[str, Description] = {**OWN, **SCENEFLOW, **BENCHMARKS, **RENDERED}

__all__ = [
    "DESCRIPTIONS",
    "FOLDERS",
    "SYNTHETIC",
    "SYNTHETIC_NOTE",
    "Description",
    "Layout",
    "Part",
    "Split",
]
