"""Fold batch norms into the convolutions before them."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stereo.models.blocks import ConvNorm2d, ConvNorm3d, UpConvNorm3d


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution, in place; for inference only.

    The convolutions get biases, and the network's state no longer fits its checkpoint.

    Raises:
        ValueError: it is in training mode, where batch norms depend on the batch.
    """
    if network.training:
        raise ValueError("batch norms fold in evaluation mode only; call network.eval() first")
    for block in network.modules():
        if isinstance(block, ConvNorm2d | ConvNorm3d | UpConvNorm3d):
            norm = block.norm
            if isinstance(norm, nn.Identity):
                continue  # folded before
            dtype = block.conv.weight.dtype
            # In float64: each weight is rounded once.
            folded = fuse_conv_bn_eval(
                block.conv.double(), norm.double(), transpose=isinstance(block, UpConvNorm3d)
            )
            block.conv = folded.to(dtype)
            block.norm = nn.Identity()  # type: ignore[assignment]
