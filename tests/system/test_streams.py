"""Reading, matching and writing at the same time."""

import threading
import time

import pytest

from stereo.errors import InputError, OutputError
from stereo.system.streams import overlap


def test_outcomes_come_in_order_with_each_steps_result():
    outcomes = list(
        overlap(
            range(9),
            read=lambda item: item * 10,
            match=lambda item, read: read + 1,
            write=lambda item, read, matched: f"{item}: {matched}",
        )
    )
    assert [o.item for o in outcomes] == list(range(9))
    assert [o.matched for o in outcomes] == [10 * i + 1 for i in range(9)]
    assert [o.written for o in outcomes] == [f"{i}: {10 * i + 1}" for i in range(9)]
    assert not any(o.error for o in outcomes)


def test_an_error_in_a_step_ends_only_its_item():
    def read(item):
        if item == 1:
            raise InputError("cannot be read")
        return item

    def match(item, read):
        if item == 3:
            raise InputError("cannot be matched")
        return item

    def write(item, read, matched):
        if item == 5:
            raise OutputError("cannot be written")
        return "written"

    outcomes = list(overlap(range(7), read, match, write))
    errors = {o.item: str(o.error) for o in outcomes if o.error}
    assert errors == {1: "cannot be read", 3: "cannot be matched", 5: "cannot be written"}
    assert [o.item for o in outcomes if o.written] == [0, 2, 4, 6]


def test_the_next_is_read_and_the_last_written_during_a_match():
    at_once = {"read": threading.Event(), "write": threading.Event()}

    def read(item):
        if item == 2:
            at_once["read"].set()
        return item

    def match(item, read):
        if item == 1:  # no end before item 2 is read and item 0 is being written
            assert at_once["read"].wait(20)
            assert at_once["write"].wait(20)
        return item

    def write(item, read, matched):
        at_once["write"].set()

    assert len(list(overlap(range(4), read, match, write))) == 4


def test_few_pairs_are_in_memory_at_once():
    alive, most = 0, 0
    lock = threading.Lock()

    def read(item):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return item

    def write(item, read, matched):
        nonlocal alive
        time.sleep(0.01)
        with lock:
            alive -= 1

    list(overlap(range(40), read, lambda item, read: item, write))
    assert most <= 10


@pytest.mark.parametrize("step", range(3), ids=["read", "match", "write"])
def test_unexpected_errors_stop_the_pipeline(step):
    def fail(*_):
        raise RuntimeError("a bug")

    steps = [lambda *_: None] * 3
    steps[step] = fail
    with pytest.raises(RuntimeError, match="a bug"):
        list(overlap(range(5), *steps))
    assert not [t for t in threading.enumerate() if t.name.startswith(("read", "write"))]
