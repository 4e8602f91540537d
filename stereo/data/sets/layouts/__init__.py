"""The tables of data sets: which trees each is kept in, and how its files are read."""

from stereo.data.sets.layouts.benchmarks import BENCHMARKS
from stereo.data.sets.layouts.description import Description, Layout, Part, Split
from stereo.data.sets.layouts.own import FOLDERS, OWN
from stereo.data.sets.layouts.rendered import RENDERED
from stereo.data.sets.layouts.sceneflow import SCENEFLOW, SYNTHETIC, SYNTHETIC_NOTE

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
