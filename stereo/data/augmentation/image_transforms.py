"""Changes of one image by torchvision's v2 transforms: the only file that imports torchvision.

It is imported inside the functions, so that nothing but training needs it. The functional forms
serve: the classes draw from PyTorch's global random generator. All take and return (H, W, 3) uint8
RGB and give the same bytes whatever the number of threads.
"""

import math
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by bilinear interpolation, with antialiasing where the image shrinks."""
    return _to_array(_functional().resize(_to_tensor(image), [height, width], antialias=True))


def adjust_color(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """Change the colours, in the order of the arguments.

    Args:
        image: (H, W, 3) uint8 RGB.
        brightness: factor, 1 changes nothing.
        contrast: factor around the mean grey, 1 changes nothing.
        saturation: factor, 1 changes nothing.
        hue: turn of the colour circle, -0.5..0.5.
    """
    f = _functional()
    image = _to_array(f.adjust_brightness(_to_tensor(image), brightness))
    tensor = f.adjust_saturation(_to_tensor(_adjust_contrast(image, contrast)), saturation)
    if hue:
        tensor = f.adjust_hue(tensor, hue)
    return _to_array(tensor)


def adjust_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Raise samples in 0..1 to the power ``gamma``; above 1 the image becomes darker."""
    return _to_array(_functional().adjust_gamma(_to_tensor(image), gamma))


def misalign(image: np.ndarray, down: float, degrees: float) -> np.ndarray:
    """Rotate an image about its centre, then shift it, replicating the border.

    Args:
        image: (H, W, 3) uint8 RGB.
        down: vertical shift, pixels, positive downwards.
        degrees: rotation, positive clockwise.
    """
    from torchvision.transforms import InterpolationMode

    f = _functional()
    height, width = image.shape[:2]
    turned = math.sin(math.radians(abs(degrees))) * max(height, width) / 2
    margin = math.ceil(abs(down) + turned) + 1
    tensor = f.pad(_to_tensor(image), [margin] * 4, padding_mode="edge")
    tensor = f.affine(
        tensor,
        angle=degrees,
        translate=[0.0, down],
        scale=1.0,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return _to_array(f.crop(tensor, margin, margin, height, width))


def warp_vertically(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Move rows by offsets that are linear between the knots of a grid, the border repeated.

    Args:
        image: (H, W, 3) uint8 RGB.
        grid: (M, N), at least 2 x 2 offsets spread over the image, pixels, positive downwards.
    """
    height, width = image.shape[:2]
    knots = torch.from_numpy(np.ascontiguousarray(grid, np.float64))[None, None]
    down = F.interpolate(knots, (height, width), mode="bilinear", align_corners=True)[0, 0].numpy()
    rows = np.clip(np.arange(height)[:, None] - down, 0, height - 1)
    first = np.minimum(rows.astype(np.int64), max(height - 2, 0))
    columns = np.arange(width)[None]
    upper = image[first, columns].astype(np.float64)
    lower = image[np.minimum(first + 1, height - 1), columns]
    part = (rows - first)[..., None]
    return np.rint(upper + (lower - upper) * part).astype(np.uint8)


def blur_image(image: np.ndarray, deviation: float) -> np.ndarray:
    """Blur by a Gaussian of a deviation in pixels, 0 for none, the border mirrored."""
    radius = min(math.ceil(3 * deviation), min(image.shape[:2]) - 1)
    if radius < 1 or deviation < 0.05:
        return image
    size = 2 * radius + 1
    return _to_array(_functional().gaussian_blur(_to_tensor(image), [size, size], [deviation] * 2))


def _adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """As torchvision, but with an exact mean: its float32 sum varies with threads."""
    weighted = image.sum(axis=(0, 1), dtype=np.int64) @ np.array([299, 587, 114])
    mean = float(weighted) / (1000 * image.shape[0] * image.shape[1])
    table = np.clip(mean + factor * (np.arange(256) - mean), 0, 255)
    return table.astype(np.uint8)[image]


def _functional() -> ModuleType:
    from torchvision.transforms.v2 import functional

    return functional


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    # A copy: PyTorch takes no negative strides and warns of arrays that cannot be written to.
    return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
