"""Files that ask for more than they hold, or hold what no writer of ours writes."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stereo.checkpoint
from stereo.checkpoint import FORMAT, load_checkpoint, restore_network
from stereo.convert import convert_psmnet
from stereo.errors import InputError, StereoError
from stereo.matcher import load
from stereo.model import AttentionConfig, NetworkConfig, build_network

FAST = NetworkConfig("ea_stereo_fast", 16, attention=AttentionConfig("none"))
DEEP = "[" * 100_000 + "]" * 100_000


def write_checkpoint(path, config=FAST, network=None, weights=None, **metadata):
    """Write what may be no checkpoint: `network` is its description, as JSON holds it."""
    built = weights if weights is not None else build_network(config).state_dict()
    described = config.to_dict() if network is None else network
    given = {
        "format": FORMAT,
        "version": "1",
        "network": described if isinstance(described, str) else json.dumps(described),
        "training": "{}",
    }
    save_file({k: v.contiguous() for k, v in built.items()}, path, given | metadata)
    return path


def with_attention(name, **options):
    return FAST.to_dict() | {"attention": {"name": name, "options": options}}


@pytest.mark.parametrize(
    "network",
    [
        with_attention("efficient", key_channels=10_000_000),
        with_attention("efficient", heads=10_000_000, value_channels=10_000_000),
        with_attention("efficient", key_channels=2**70),
        with_attention("aft_conv", kernel=399),
        with_attention("lambda", kernel=399),
        with_attention("focused", kernel=399),
        with_attention("window", window=[999, 999, 999]),
        with_attention("linformer", grid=[200, 200, 200]),
        with_attention("linformer", projected=10**9),
        with_attention("perceiver", latents=10**9),
        with_attention("performer", features=10**9),
        with_attention("performer", key_channels=10**6),
        with_attention("reformer", rounds=10**9),
        FAST.to_dict() | {"max_disparity": 16 * 10**9},
        FAST.to_dict() | {"mean": [1e308, 0, 0]},
        FAST.to_dict() | {"std": [10**400, 1, 1]},
        FAST.to_dict() | {"std": [float("nan"), 1, 1]},
        FAST.to_dict() | {"name": ["ea_stereo_fast"]},
        FAST.to_dict() | {"attention": {"name": "efficient", "options": [1]}},
        FAST.to_dict() | {"attention": {"name": "efficient", "sites": 3}},
        FAST.to_dict() | {"attention": 3},
        [],
        3,
        "null",
        DEEP,
        '{"name": 1' + "0" * 10_000 + "}",
    ],
)
def test_metadata_ask_for_no_more_than_the_file_holds(tmp_path, monkeypatch, network):
    real = stereo.checkpoint.build_network

    def build(config):
        assert torch.get_default_device().type == "meta"
        return real(config)

    path = write_checkpoint(tmp_path / "it.safetensors", network=network)
    monkeypatch.setattr(stereo.checkpoint, "build_network", build)
    with pytest.raises(InputError, match=r"it\.safetensors: [^\n]+$"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["training", "confidence"])
@pytest.mark.parametrize(
    "text", [DEEP, "[]", "3", "{", "\ud800".encode("utf-8", "replace").decode()]
)
def test_other_metadata_are_objects(tmp_path, key, text):
    path = write_checkpoint(tmp_path / "it.safetensors", **{key: text})
    with pytest.raises(InputError, match=r"metadata cannot be used [^\n]+$"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.int8, torch.int64]
)
def test_weights_of_other_types_are_refused(tmp_path, dtype):
    weights = {k: v.to(dtype) for k, v in build_network(FAST).state_dict().items()}
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    with pytest.raises(InputError, match=r"is stored as .*; expected F64"):
        load_checkpoint(path)


def test_a_number_of_float64_that_float32_cannot_hold_is_not_finite(tmp_path):
    weights = {
        k: v.double() if v.is_floating_point() else v
        for k, v in build_network(FAST).state_dict().items()
    }
    next(iter(weights.values())).view(-1)[0] = 1e300
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    with pytest.raises(InputError, match="not finite"):
        restore_network(load_checkpoint(path), str(path))


@pytest.mark.parametrize("manner", [{"coarse_to_fine": True}, {"scale": "2"}, {"scale": "1"}])
def test_finite_weights_whose_maps_are_not_are_our_error(tmp_path, manner):
    weights = build_network(FAST).state_dict()
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    matcher = load(path, max_disparity=16, **manner)
    with pytest.raises(StereoError, match="not finite"):
        matcher(*np.zeros((2, 32, 32, 3), np.uint8))


def published(tmp_path, **changed):
    state = {"classify.0.0.weight": torch.ones(2, 2)}
    torch.save({"state_dict": state | changed}, tmp_path / "it.tar")
    return tmp_path / "it.tar"


def refuse_tar(path, match="it.tar"):
    with pytest.raises(InputError, match=rf"{match}[^\n]*$"):
        convert_psmnet(path, align_corners=True)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(2_000_000_000),
        torch.ones(1).expand(40_000, 1, 50_000),
        torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.quint8),
        torch.ones(4).to_sparse(),
        torch.empty(10**12, device="meta"),
        torch.ones(4, dtype=torch.complex64),
        torch.ones(4, dtype=torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["stride 0", "strides 0", "quantised", "sparse", "meta", "complex", "float8", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_a_tar_are_plain_and_of_the_networks_shapes(tmp_path, tensor):
    refuse_tar(published(tmp_path, bomb=tensor))


def test_a_tar_whose_members_are_compressed_or_overlap_is_refused(tmp_path):
    source = zipfile.ZipFile(published(tmp_path, bomb=torch.zeros(1_000_000)))
    with zipfile.ZipFile(tmp_path / "zip.tar", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))
    refuse_tar(tmp_path / "zip.tar", "zip.tar")


def test_a_tar_whose_pickle_claims_more_numbers_than_are_stored_is_refused(tmp_path):
    source = zipfile.ZipFile(published(tmp_path))
    with zipfile.ZipFile(tmp_path / "it2.tar", "w") as archive:
        for member in source.infolist():
            archive.writestr(
                member.filename, source.read(member).replace(b"K\x04t", b"J\x00\x00\x00\x70t")
            )
    refuse_tar(tmp_path / "it2.tar", "it2.tar")


@pytest.mark.parametrize(
    "call",
    [
        (
            torch._utils._rebuild_device_tensor_from_cpu_tensor,
            (torch.ones(1).expand(2_000_000_000), torch.float64, "cpu", False),
        ),
        (bytearray, (2**40,)),
    ],
    ids=["copy of a view", "bytearray"],
)
def test_functions_that_multiply_bytes_are_not_called(tmp_path, call):
    class Bomb:
        def __reduce__(self):
            return call

    torch.save(
        {"state_dict": {"classify.0.0.weight": torch.ones(2)}, "x": Bomb()}, tmp_path / "it.tar"
    )
    refuse_tar(tmp_path / "it.tar")


def test_old_files_of_torch_claim_no_more_than_they_hold(tmp_path):
    whole = io.BytesIO()
    torch.save(
        {"state_dict": {"classify.a": torch.ones(4)}}, whole, _use_new_zipfile_serialization=False
    )
    (tmp_path / "it.tar").write_bytes(whole.getvalue().replace(b"K\x04N", b"J\x00\x00\x00\x70N"))
    refuse_tar(tmp_path / "it.tar")
    (tmp_path / "it.tar").write_bytes(pickle.dumps({"state_dict": 1}))
    refuse_tar(tmp_path / "it.tar")
