"""Fixtures: the reference data, where they are at hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stereo.cli import run

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


@pytest.fixture
def stereo(capfd):
    """Call the command line in this process; give its status, output and lines on stderr."""

    def call(*arguments):
        try:
            status = run([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        captured = capfd.readouterr()
        return SimpleNamespace(status=status, out=captured.out, errors=captured.err.splitlines())

    return call
