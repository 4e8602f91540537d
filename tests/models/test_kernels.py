"""Triton kernels, without a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

from stereo.errors import UsageError
from stereo.models import AttentionConfig, NetworkConfig, build_network
from stereo.models.kernels import pick_kernels, use_kernels


@pytest.mark.slow
def test_kernels_equal_their_plain_forms_in_the_interpreter():
    pytest.importorskip("triton")
    path = REPOSITORY / "tests" / "models" / "interpreted" / "check_kernels.py"
    call = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(path)]
    done = subprocess.run(
        call, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout


def test_missing_kernels_are_an_error():
    assert pick_kernels("auto", torch.device("cpu")) == "torch"
    assert pick_kernels("torch", torch.device("cpu")) == "torch"
    with pytest.raises(UsageError, match="kernels 'triton' need an NVIDIA GPU"):
        pick_kernels("triton", torch.device("cpu"))
    with pytest.raises(UsageError, match="unknown kernels 'cuda'"):
        pick_kernels("cuda", torch.device("cpu"))


def test_requested_kernels_are_used():
    pytest.importorskip("triton")
    attention = AttentionConfig("efficient", sites=("quarter", "sixteenth"))
    network = build_network(NetworkConfig("ea_psmnet", 32, attention=attention))
    use_kernels(network, "triton")
    from stereo.models.kernels.attention import attend
    from stereo.models.kernels.regression import regress_disparity

    assert network.regress is regress_disparity
    assert network.aggregation.attention_quarter.fused is attend
    assert network.aggregation.hourglasses[0].attention_sixteenth.fused is attend
    plain = build_network(NetworkConfig("ea_psmnet", 32))
    use_kernels(plain, "torch")
    assert plain.aggregation.attention_quarter.fused is None
    other = AttentionConfig("linear")
    network = build_network(NetworkConfig("ea_psmnet", 32, attention=other))
    use_kernels(network, "triton")
    assert network.aggregation.attention_quarter.fused is None
