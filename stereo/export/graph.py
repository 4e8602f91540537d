"""A network as an ONNX graph of any batch, height and width."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from stereo.attention import ATTENTIONS, VolumeAttention
from stereo.errors import StereoError, UsageError
from stereo.export.quiet import quiet_loggers
from stereo.matching.onnx_engine import OUTPUTS
from stereo.models import NetworkConfig, StereoNetwork
from stereo.version import __version__

OPSET = 18
TRACED_SIZE = (2, 96, 160)  # batch, height, width
_INPUT = "float32 (batch, 3, height, width), RGB in 0..255, multiples of the stride"
_DOCUMENTED = {
    "left": _INPUT,
    "right": _INPUT,
    "disparity": "float32 (batch, height, width), pixels of the left view",
    "certainty": "float32 (batch, 2, height, width): probability about the likeliest plane, and "
    "1 - entropy / log(planes)",
}


class Exportable(nn.Module):
    """A network from images to its map: normalisation before it, no negative disparity after."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: StereoNetwork, config: NetworkConfig) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().requires_grad_(False)
        self.stride = network.stride
        for module in self.network.modules():
            if hasattr(module, "plain"):
                module.plain = True  # type: ignore[assignment]
            if isinstance(module, nn.ReLU):
                module.inplace = False
            if isinstance(module, VolumeAttention):
                module.streams = False
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config.std).view(3, 1, 1))

    def forward(
        self,
        left: Tensor,  # (B, 3, H, W)
        right: Tensor,  # (B, 3, H, W)
    ) -> tuple[Tensor, Tensor]:  # (B, H, W) and (B, 2, H, W), as ``OUTPUTS`` names them
        """Match RGB images of 0..255."""
        left, right = ((view - self.mean) / self.std for view in (left, right))
        found = self.network.estimate(self.network.extract(left), self.network.extract(right))
        return found[:, 0].clamp(min=0), found[:, 1:]


def check_exportable(config: NetworkConfig) -> None:
    """Raise ``UsageError`` with the reason if the network's attention cannot be exported."""
    if config.attention is None:
        return
    attention = ATTENTIONS.get(config.attention.name)
    reason = None if attention is None else attention.unexportable
    if reason is not None:
        raise UsageError(f"attention '{config.attention.name}' cannot be exported: {reason}")


def export_graph(network: StereoNetwork, config: NetworkConfig) -> Any:
    """Return the ``onnx.ModelProto`` of a network.

    Raises:
        StereoError: PyTorch's exporter failed.
    """
    exportable = Exportable(network, config).eval()
    batch, height, width = TRACED_SIZE
    views = tuple(torch.rand(batch, 3, height, width) * 255 for _ in range(2))
    sizes = {
        0: torch.export.Dim("batch", min=1, max=2**16),
        2: exportable.stride * torch.export.Dim("rows", min=1, max=2**12),
        3: exportable.stride * torch.export.Dim("columns", min=1, max=2**12),
    }
    with torch.enable_grad(), quiet_loggers():
        try:
            program = torch.onnx.export(
                exportable,
                views,
                dynamo=True,
                dynamic_shapes={"left": sizes, "right": sizes},
                input_names=["left", "right"],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # which one differs from release to release
            cause = str(error.__cause__ or error).strip().split("\n")[0]
            raise StereoError(
                f"PyTorch {torch.__version__} cannot export this network ({cause[:200]})"
            ) from error
    assert program is not None
    return program.model_proto


def set_metadata(proto: Any, facts: dict[str, str]) -> None:
    """Set a graph's metadata and the descriptions of its inputs and outputs, in place."""
    from onnx import helper

    helper.set_model_props(proto, facts)
    proto.producer_name, proto.producer_version = "stereo-efficient-attention", __version__
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = _DOCUMENTED[value.name]
