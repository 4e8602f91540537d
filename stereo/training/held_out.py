"""Which pairs are held out for validation: the same ones in every run."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from stereo.errors import UsageError

T = TypeVar("T")


def hold_out(names: Iterable[str], share: float) -> set[str]:
    """Choose a share of the pairs by their names, or by the names of what they show.

    Whole scenes (folders) are chosen, at least one, since neighbouring frames are nearly the same
    image: those whose names have the smallest hashes. Of a single folder, it is the last pairs in
    the order of their names.

    Args:
        names: with folders, such as ``TRAIN/A/0000/0006``; doubles count once.
        share: above 0 and below 1.

    Returns:
        Names; at least one of them, and at least one is left.

    Raises:
        UsageError: fewer than two pairs.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise UsageError(
            f"training pairs: {len(names)}, too few to hold one out for validation; name "
            "others with --data.validation.root"
        )
    scenes: dict[str, list[str]] = {}
    for name in names:
        scenes.setdefault(name.rpartition("/")[0], []).append(name)
    if len(scenes) > 1:
        count = min(max(1, round(share * len(scenes))), len(scenes) - 1)
        ordered = sorted(scenes, key=lambda scene: hashlib.sha256(scene.encode()).digest())
        return {name for scene in ordered[:count] for name in scenes[scene]}
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return set(sorted(names)[-count:])


def spread(pairs: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of the pairs, spread evenly over the list."""
    count = min(most, len(pairs))
    return [pairs[place * len(pairs) // count] for place in range(count)]
