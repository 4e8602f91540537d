"""Models that stay loaded from one request to the next."""

import dataclasses
import threading
from collections import OrderedDict
from pathlib import Path

from stereo.app.limits import MAX_DISPARITY
from stereo.errors import unknown_name
from stereo.matching.loading import load, own_max_disparity, searches_own_range
from stereo.matching.matcher import Matcher
from stereo.matching.options import MatchOptions, kind_of
from stereo.models import NETWORK_NAMES
from stereo.system.bundled import DEFAULT_MODEL, SGBM, bundled_weights

KEPT = 3  # models in memory


class Models:
    """The models that the page offers: those that have weights, and the owner's own file.

    Args:
        options: how the models match; the range is each request's.
        own: a model of the owner of the page, as ``stereo.load`` takes it, offered first; None for
            none. Visitors choose among names alone, so that no request can name a file.
    """

    def __init__(self, options: MatchOptions | None = None, own: str | None = None) -> None:
        self._options = options or MatchOptions()
        self._files = {} if own is None else {_label(own): own}
        self._loaded: OrderedDict[tuple[str, MatchOptions], Matcher] = OrderedDict()
        self._ranges: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names to choose from, the default first."""
        trained = [name for name in NETWORK_NAMES if bundled_weights(name) is not None]
        names = dict.fromkeys([*self._files, DEFAULT_MODEL, *trained, SGBM])
        return [name for name in names if name == SGBM or name in self._files or name in trained]

    def max_disparity(self, name: str) -> int:
        """Return a model's own range, or the largest that the page searches, pixels.

        Raises:
            InputError: a checkpoint that cannot be used.
        """
        if name not in self._ranges:
            self._ranges[name] = own_max_disparity(self._files.get(name, name))
        return min(self._ranges[name], MAX_DISPARITY)

    def get(self, name: str, max_disparity: int, min_disparity: int = 0) -> Matcher:
        """Return a model, loaded at most once while it is in use.

        Raises:
            UsageError: a name that is not offered.
            InputError: a checkpoint that cannot be used.
        """
        if name not in self.names:
            raise unknown_name("model", name, self.names)
        source = self._files.get(name, name)
        options = dataclasses.replace(
            self._options.for_further(source),
            max_disparity=None if searches_own_range(source) else max_disparity,
            min_disparity=min_disparity,
        )
        key = (name, options)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load(source, options)
            self._loaded.move_to_end(key)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def _label(model: str) -> str:
    if kind_of(model) == "code":
        return Path(model).name
    named = (SGBM, *NETWORK_NAMES)
    if model in named:
        return model
    return Path(model).name if Path(model).stem in named else Path(model).stem
