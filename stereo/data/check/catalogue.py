"""``stereo data list``: the known data sets, their splits and trees."""

from stereo.data.sets.datasets import DATASETS
from stereo.data.sets.layouts import Description, Layout, Part
from stereo.data.sets.patterns import PathPattern
from stereo.system.console import say


def list_datasets() -> None:
    """Print every data set with its splits, the published counts and the trees it is found in."""
    for name, description in DATASETS.items():
        say(f"{name}: {description.what}")
        if description.parts:
            say("  " + _splits(description))
        for part in description.parts:
            for layout in part.layouts:
                split = next(iter(layout.splits.values()))
                given = {"split": split.folder} if split.folder else {}
                for text in (layout.left, layout.disparity):
                    pattern = PathPattern(text).with_values(given)
                    say(f"  {layout.name}: {_folder(part, layout)}{pattern.shown}")
        say("")


def _splits(description: Description) -> str:
    """Return the splits with their published counts, and the passes."""
    texts = []
    for name in description.splits:
        counts = [
            next(layout.splits[name].count for layout in part.layouts if name in layout.splits)
            for part in description.parts
            if any(name in layout.splits for layout in part.layouts)
        ]
        known = [count for count in counts if count is not None]
        total = f" ({sum(known):,} pairs)" if known and len(known) == len(counts) else ""
        default = ", default" if name == description.default_split else ""
        texts.append(f"{name}{total}{default}")
    passes = f"; passes {', '.join(description.passes)}" if description.passes else ""
    return f"splits: {'; '.join(texts)}{passes}"


def _folder(part: Part, layout: Layout) -> str:
    first = part.folders_of(layout)[0]
    return f"{first}/" if first else ""
