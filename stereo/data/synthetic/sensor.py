"""Camera model: exposure, blur, noise and other artefacts, drawn for each view."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stereo.data.synthetic.config import SyntheticConfig
from stereo.data.synthetic.noise import square_root, white_noise
from stereo.data.synthetic.rng import SceneRng

CURVE = 4096  # entries of a tone curve
LARGEST_TAP = 0.33  # beside the centre of a blur's kernel, which stays the largest
JUMP = 1.0  # pixels of disparity from row to row, beyond which they show two surfaces


@dataclass(frozen=True)
class Sensor:
    """The faults of one view's camera."""

    gains: tuple[float, float, float]
    """Exposure and colour balance: factors of red, green and blue."""
    gamma: float
    """Exponent of the tone curve, about 1 / 2."""
    blur: float
    """Deviation of the blur, pixels; 0 for none."""
    vignette: float
    """Share of the light that the corners lose."""
    vignette_centre: tuple[float, float]
    """Where it is brightest, in shares of width and height."""
    read_noise: float
    """Deviation of the noise in the dark, linear light."""
    shot_noise: float
    """Variance of the noise per linear light."""
    noise_grain: bool
    """Whether the noise is grey, as after conversion, not coloured."""
    noise_seed: int
    """Of the noise."""
    offset: float
    """Rows by which the picture is too high in the middle, pixels."""
    roll: float
    """Rows per column by which that grows to the right."""


def draw_sensors(config: SyntheticConfig, rng: SceneRng) -> tuple[Sensor, Sensor]:
    """Return the left and the right view's camera: alike in kind, unlike in detail."""
    gamma = rng.uniform(0.42, 0.6)
    exposure = rng.log_uniform(0.8, 1.25)
    noisy = rng.weighted({0.0: 2.0, 0.3: 4.0, 1.0: 2.0, 2.5: 0.5})
    soft = rng.weighted({0.0: 3.0, 0.5: 3.0, 0.9: 1.0})
    apart = rng.weighted({0.15: 5.0, 0.5: 3.0, 1.0: 1.0}) * config.photometric
    askew = rng.weighted({0.0: 3.0, 0.25: 3.0, 1.0: 1.0}) * config.misalignment
    dark = rng.weighted({0.0: 3.0, 0.3: 2.0, 0.6: 1.0}) * config.vignetting

    def one(*, right: bool) -> Sensor:
        gain = exposure * (1.0 + apart * rng.uniform(-0.45, 0.45))
        gains = [max(0.05, gain * (1.0 + apart * rng.uniform(-0.12, 0.12))) for _ in range(3)]
        shift = askew * rng.uniform(-0.75, 0.75) if right else 0.0
        roll = askew * rng.uniform(-0.5, 0.5) / config.width if right else 0.0
        return Sensor(
            gains=(gains[0], gains[1], gains[2]),
            gamma=max(0.2, gamma * (1.0 + apart * rng.uniform(-0.15, 0.15))),
            blur=soft * config.blur * rng.uniform(0.5, 1.2),
            vignette=min(0.9, dark * rng.uniform(0.5, 1.0)),
            vignette_centre=(rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)),
            read_noise=0.006 * noisy * config.noise * rng.uniform(0.6, 1.4),
            shot_noise=0.0012 * noisy * config.noise * rng.uniform(0.6, 1.4),
            noise_grain=rng.chance(0.4),
            noise_seed=rng.word(),
            offset=shift,
            roll=roll,
        )

    return one(right=False), one(right=True)


def metered(left: Tensor, right: Tensor, rng: SceneRng) -> tuple[Tensor, Tensor]:
    """Scale both views, (H, W, 3) linear light, by one factor, as automatic exposure does.

    The aim is drawn at random; some scenes stay as dark or bright as they are. The sum is one of
    whole numbers, whose order does not matter.
    """
    aim = rng.log_uniform(0.13, 0.45)
    if rng.chance(0.05):
        return left, right
    total = int((left.clamp(0.0, 1.0) * 1024.0).long().sum())
    factor = min(max(aim * left.numel() * 1024.0 / (total + 1.0), 0.15), 8.0)
    return left * factor, right * factor


def ideal(linear: Tensor) -> Tensor:
    """Return what a faultless camera shows, (H, W, 3) uint8; ``linear`` as for ``expose``."""
    return _quantised(square_root(linear.clamp(0.0, 1.0)))


def expose(linear: Tensor, camera: Sensor) -> Tensor:
    """Return what a camera shows.

    Args:
        linear: (H, W, 3) float32, linear light.
        camera: its faults.

    Returns:
        (H, W, 3) uint8.
    """
    light = linear
    if camera.offset or camera.roll:
        light = _shifted(light, camera)
    if camera.blur > 0.05:
        light = _blurred(light, camera.blur)
    gains = torch.tensor(camera.gains)
    if camera.vignette > 0:
        light = light * _vignette(light, camera)
    light = light * gains
    if camera.read_noise > 0 or camera.shot_noise > 0:
        shape = light.shape[:2] + ((1,) if camera.noise_grain else (3,))
        noise = white_noise(tuple(shape), camera.noise_seed)
        spread = square_root(light.clamp(min=0.0) * camera.shot_noise + camera.read_noise**2)
        light = light + spread * noise
    return _quantised(_curved(light.clamp(0.0, 1.0), camera.gamma))


def shifted_truth(disparity: Tensor, seen: Tensor, camera: Sensor) -> tuple[Tensor, Tensor]:
    """Move a view's disparities and occlusion mask, (H, W) each, with its picture.

    Disparities are interpolated between rows of one surface; elsewhere, and in the mask, the nearer
    row counts.
    """
    if not (camera.offset or camera.roll):
        return disparity, seen
    upper, lower, part = _rows_around(torch.stack([disparity, seen.float()], dim=2), camera)
    between = upper + (lower - upper) * part
    nearer = torch.where(part < 0.5, upper, lower)
    smooth = (lower - upper)[..., 0].abs() < JUMP
    return torch.where(smooth, between[..., 0], nearer[..., 0]), nearer[..., 1] > 0.5


def _quantised(values: Tensor) -> Tensor:
    return (values * 255.0 + 0.5).to(torch.uint8)


def _curved(light: Tensor, gamma: float) -> Tensor:
    """Raise to a power by a table over the square root: alike on all machines, and fast."""
    knots = np.linspace(0.0, 1.0, CURVE) ** (2.0 * gamma)  # float64, so that float32 is exact
    table = torch.from_numpy(knots.astype(np.float32))
    place = (square_root(light) * (CURVE - 1) + 0.5).int()
    return table.index_select(0, place.reshape(-1)).view(light.shape)


def _vignette(light: Tensor, camera: Sensor) -> Tensor:
    height, width = light.shape[:2]
    x = torch.arange(width).float() / width - camera.vignette_centre[0]
    y = torch.arange(height).float() / height - camera.vignette_centre[1]
    return (1.0 - camera.vignette * (x**2 + (y**2)[:, None]) * 2.0).clamp(min=0.1)[..., None]


def _blurred(light: Tensor, deviation: float) -> Tensor:
    """Blur with a small symmetric kernel of a deviation, pixels, one direction after the other."""
    # Three taps reach a deviation of 0.7; wider blurs are several of them.
    rounds = 1 if deviation < 0.7 else 2 if deviation < 1.0 else 4
    rounds = max(rounds, math.ceil(deviation**2 / (2.0 * LARGEST_TAP)))
    for _ in range(rounds):
        side = deviation**2 / rounds / 2.0
        for dim in (0, 1):
            n = light.shape[dim]
            first, last = light.narrow(dim, 0, 1), light.narrow(dim, n - 1, 1)
            before = torch.cat([first, light.narrow(dim, 0, n - 1)], dim)
            after = torch.cat([light.narrow(dim, 1, n - 1), last], dim)
            light = light * (1.0 - 2.0 * side) + (before + after) * side
    return light


def _shifted(light: Tensor, camera: Sensor) -> Tensor:
    """Move the picture up by a fraction of rows that grows along the columns."""
    upper, lower, part = _rows_around(light, camera)
    return upper + (lower - upper) * part


def _rows_around(values: Tensor, camera: Sensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two rows of (H, W, C) values that a shown pixel lies between, and how far."""
    height, width, channels = values.shape
    across = torch.arange(width).float() - width / 2
    rows = torch.arange(height).float()[:, None]
    place = (rows + (camera.offset + camera.roll * across)).clamp(0.0, height - 1.0)
    first = place.floor()
    part = (place - first)[..., None]
    first = first.long()
    column = torch.arange(width)
    flat = values.reshape(-1, channels)
    upper = F.embedding(first * width + column, flat)
    lower = F.embedding((first + 1).clamp(max=height - 1) * width + column, flat)
    return upper, lower, part
