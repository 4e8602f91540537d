"""Threads sleep while they wait, however the package is used."""

import os
import subprocess
import sys
import types
import warnings

import pytest

from stereo import threads


@pytest.fixture
def fresh(monkeypatch):
    """A process that has neither PyTorch nor a setting."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "_state", {"too_late": False})
    return monkeypatch


def test_import_alone_sets_the_policy_before_pytorch_is_there():
    code = "import stereo, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.split() == [b"PASSIVE", b"False"]


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_setting_of_the_users_own_wins(fresh, name):
    fresh.setenv(name, "7")
    threads.wait_passively()
    assert os.environ.get("OMP_WAIT_POLICY") == ("7" if name == "OMP_WAIT_POLICY" else None)


def test_pytorch_first_is_said_once(fresh):
    fresh.setitem(sys.modules, "torch", types.ModuleType("torch"))
    threads.wait_passively()
    assert "OMP_WAIT_POLICY" not in os.environ
    with pytest.warns(UserWarning, match="Import stereo first, or set OMP_WAIT_POLICY=PASSIVE"):
        threads.warn_if_threads_spin()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.warn_if_threads_spin()


def test_nothing_is_said_where_stereo_came_first(fresh):
    threads.wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads.warn_if_threads_spin()
