"""Fixtures: the reference data, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def shared(path: str) -> Path:
    """Return a path of the reference data, or skip the test where they are absent."""
    found = SHARED_DATA / path
    if not found.exists():
        pytest.skip(f"reference data {path} not at hand")
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
