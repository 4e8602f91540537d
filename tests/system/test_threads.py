"""Threads sleep while they wait, however the package is used."""

import os
import subprocess
import sys
import types
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from stereo.system import threads


@pytest.fixture
def fresh(monkeypatch):
    """A process that has neither PyTorch nor a setting."""
    for name in (*threads.SETTINGS, threads.COUNT):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "_state", {"too_late": False})
    return monkeypatch


def test_import_sets_the_environment_before_pytorch_is_loaded():
    code = (
        "import stereo, os, sys; print(*map(os.environ.get, sys.argv[1:]), 'torch' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in threads.SETTINGS}
    call = [sys.executable, "-c", code, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    done = subprocess.run(call, env=environment, capture_output=True)
    assert done.stdout.split() == [b"PASSIVE", b"3000", b"False"]


@pytest.mark.parametrize(
    "policy, spins", [("ACTIVE", None), ("PASSIVE", "3000"), ("passive", "3000"), ("", "3000")]
)
def test_a_policy_of_ones_own_stays_and_a_passive_one_spins_for_short_gaps(fresh, policy, spins):
    fresh.setenv("OMP_WAIT_POLICY", policy)
    threads.prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == (policy or "PASSIVE")
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize(
    ("quota", "own", "count"),
    [(None, None, None), (1.5, None, "2"), (0.5, None, "1"), (64, None, None), (2, "5", "5")],
)
def test_a_containers_quota_bounds_the_threads(fresh, quota, own, count):
    fresh.setattr(threads, "cpu_quota", lambda: quota)
    fresh.setattr(threads, "_usable", lambda: 64)
    if own:
        fresh.setenv("OMP_NUM_THREADS", own)
    threads.prepare_threads()
    assert os.environ.get("OMP_NUM_THREADS") == count


@pytest.mark.parametrize("name", threads.SETTINGS)
def test_the_users_own_setting_takes_precedence(fresh, name):
    fresh.setenv(name, "7")
    threads.prepare_threads()
    assert {each: os.environ.get(each) for each in threads.SETTINGS if each in os.environ} == {
        name: "7"
    }


def test_importing_pytorch_first_is_reported_once(fresh):
    fresh.setitem(sys.modules, "torch", types.ModuleType("torch"))
    threads.prepare_threads()
    assert "OMP_WAIT_POLICY" not in os.environ
    with pytest.warns(UserWarning, match="Import stereo first, or set OMP_WAIT_POLICY=PASSIVE"):
        threads.warn_if_threads_spin()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.warn_if_threads_spin()


def test_a_setting_of_ones_own_silences_the_report(fresh):
    fresh.setitem(sys.modules, "torch", types.ModuleType("torch"))
    fresh.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.prepare_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.warn_if_threads_spin()


def test_importing_stereo_first_is_silent(fresh):
    threads.prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.warn_if_threads_spin()


@pytest.mark.parametrize(
    ("cores", "environment", "threads_each"),
    [
        (8, {}, None),  # one process: PyTorch's choice
        (8, {"LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}, None),  # the user's own setting
        (8, {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 4),  # torchrun's
        (8, {"LOCAL_WORLD_SIZE": "3", "OMP_NUM_THREADS": "1"}, 2),
        (8, {"LOCAL_WORLD_SIZE": "2"}, 4),
        (8, {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "3"}, None),  # the user's own again
        (2, {"LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"}, 1),
    ],
)
def test_threads_of_torchruns_processes_add_up_to_the_cores(
    monkeypatch, cores, environment, threads_each
):
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = []
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr("cv2.setNumThreads", given.append)
    threads.share_cores()
    assert given == ([] if threads_each is None else [threads_each] * 2)


def test_two_hardware_threads_are_one_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8 if logical else 4)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    assert threads._cores() == 4
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.5)
    assert threads._cores() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert threads._cores() == 2


class Threads(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY") or "none"


def test_a_loaders_process_has_one_thread_that_sleeps_while_it_waits(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # as prepare_threads does
    for counts, policies in DataLoader(Threads(), num_workers=2):
        assert counts.tolist() == [1]
        assert list(policies) == ["PASSIVE"]
