"""The fuzz run of ``scripts/fuzz.py``, a few dozen files of it in this process."""

import itertools
import random
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
from fuzz import attempt
from fuzz_damage import BYTES, MEANINGS, damage
from fuzz_readers import readers

CHEAP = 6  # readers that need no network
FILES = 8  # of each


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_only_our_errors(tmp_path):
    outcomes = []
    for name, paths, read in itertools.islice(readers(tmp_path), CHEAP):
        valid = [path.read_bytes() for path in paths]
        for number in range(FILES):
            dice = random.Random(f"{name} {number}")
            chosen = dice.randrange(len(paths))
            paths[chosen].write_bytes(damage(valid[chosen], valid, dice))
            outcome, told = attempt(read, paths[chosen])
            assert outcome != "found", f"{name} {number}: {told}"
            outcomes.append(outcome)
            paths[chosen].write_bytes(valid[chosen])
    assert {"read", "refused"} == set(outcomes)


@pytest.mark.parametrize("kind", [*BYTES, *MEANINGS])
def test_damage_changes_bytes_and_is_reproducible(kind):
    data = b'{"a": [1, 2.5, "x"],\n "b": {"c": null}\n}\n'
    arguments = (data,) if kind in BYTES else ()
    changed = [kind(data, *arguments, random.Random(seed)) for seed in range(20)]
    assert changed == [kind(data, *arguments, random.Random(seed)) for seed in range(20)]
    if kind.__name__ in ("_zip", "_safetensors", "_onnx"):
        assert set(changed) == {None}
    else:
        assert len(set(changed)) > 1


def test_other_errors_are_findings(tmp_path):
    def read(_):
        raise OverflowError

    outcome, told = attempt(read, tmp_path)
    assert (outcome, told.splitlines()[-1]) == ("found", "OverflowError")
