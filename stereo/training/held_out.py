"""Which pairs are held out for validation: the same ones in every run."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from stereo.errors import UsageError

T = TypeVar("T")


def hold_out(names: Iterable[str], share: float) -> set[str]:
    """Choose a share of the pairs by their names, or by the names of what they show.

    Whole scenes (folders) are chosen, since neighbouring frames are nearly the same image: in the
    order of their names' hashes, as many as come nearest to the share, or the smallest one if all
    are too large. Of a single folder, it is the last pairs in the order of their names.

    Args:
        names: one per pair, with folders, such as ``TRAIN/A/0000/0006``.
        share: of the pairs, above 0 and below 1.

    Returns:
        Names; at least one of them, and at least one is left.

    Raises:
        UsageError: fewer than two names.
    """
    pairs = Counter(names)
    if len(pairs) < 2:
        raise UsageError(
            f"the training pairs show {len(pairs)} place, too few to hold one out for validation; "
            "name other pairs with --data.validation.root"
        )
    scenes: dict[str, list[str]] = {}
    for name in pairs:
        scenes.setdefault(name.rpartition("/")[0], []).append(name)
    if len(scenes) == 1:
        count = min(max(1, round(share * len(pairs))), len(pairs) - 1)
        return set(sorted(pairs)[-count:])
    sizes = {scene: sum(pairs[name] for name in members) for scene, members in scenes.items()}
    ordered = sorted(scenes, key=lambda scene: hashlib.sha256(scene.encode()).digest())
    held: list[str] = []
    missing = share * pairs.total()
    for scene in ordered:
        if sizes[scene] <= 2 * missing and len(held) < len(scenes) - 1:
            held.append(scene)
            missing -= sizes[scene]
        elif held:
            break
    held = held or [min(ordered, key=lambda scene: sizes[scene])]
    return {name for scene in held for name in scenes[scene]}


def spread(pairs: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of the pairs, spread evenly over the list."""
    count = min(most, len(pairs))
    return [pairs[place * len(pairs) // count] for place in range(count)]
