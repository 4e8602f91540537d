"""Render three small stereo pairs with exact ground truth in Scene Flow's folder tree.

A scene is a list of layers. A layer's disparity d is a known function of the left image position,
affine for a plane and affine plus a bump for a sphere or a cylinder; its point at left (x, y) is
seen at (x - d, y) on the right, and the nearest layer wins in either view. Textures, light and
shadows are functions of the surface point, hence agree between the views. All is seeded.

Lengths in space are in baselines, X right, Y down, Z forward from the left camera, so that
``x = CX + X d``, ``y = CY + Y d`` and ``d = FOCAL / Z`` with x, y and d in pixels.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

HEIGHT, WIDTH, FOCAL, CX, CY = 256, 448, 448.0, 224.0, 92.0  # pixels
SUPERSAMPLE = 3  # colour samples along each side of a pixel
ROUND = 0.94  # of a bump, below 1 so that the slope of its disparity stays finite at the outline

Array = np.ndarray
Shape = Callable[[Array, Array], Array]  # signed distance at left (x, y), pixels, negative inside


@dataclass(frozen=True)
class Layer:
    """One textured surface.

    Attributes:
        plane: (a, b, c) of the disparity a x + b y + c, pixels.
        shape: Its outline; None for a boundless surface, which casts no shadow.
        pattern: Name of the texture, see ``weave``.
        colours: Two sRGB colours, "rrggbb rrggbb".
        cell: Size of a texture cell at the texture's origin, pixels.
        origin: (x, y) of the texture's origin, pixels.
        seed: Seed of the texture.
        grain: Strength of the fine noise over the texture.
        turn: Rotation of the texture, radians.
        group: Layers of one positive group cast no shadow on each other.
        bump: None for a plane; else (x, y, x radius, y radius, height) in pixels of a sphere, or
            with an infinite y radius of an upright cylinder.
    """

    plane: tuple[float, float, float]
    shape: Shape | None
    pattern: str
    colours: str
    cell: float
    origin: tuple[float, float] = (CX, CY)
    seed: int = 0
    grain: float = 0.5
    turn: float = 0.0
    group: int = 0
    bump: tuple[float, float, float, float, float] | None = None

    def disparity(self, x: Array, y: Array) -> Array:
        """Returns the disparity at left positions (x, y), pixels, of their shape."""
        d = self.plane[0] * x + self.plane[1] * y + self.plane[2]
        if self.bump:
            bx, by, rx, ry, height = self.bump
            rim = np.minimum(((x - bx) / rx) ** 2 + ((y - by) / ry) ** 2, 1.0)
            d = d + height * np.sqrt(1.0 - ROUND * rim)
        return d

    def left_x(self, x_right: Array, y: Array) -> Array:
        """Returns the left x of what the right view has at (x_right, y), pixels."""
        a, b, c = self.plane
        x = (x_right + b * y + c) / (1.0 - a)
        for _ in range(200 if self.bump else 0):
            x, before = x_right + self.disparity(x, y), x
            if np.abs(x - before).max() < 1e-6:
                break
        return x

    def normal(self) -> Array:
        """Returns n, shape (3,), of the plane n . P = 1 in space, per baseline."""
        a, b, c = self.plane
        return np.array([a, b, (a * CX + b * CY + c) / FOCAL])


def point_at(x: Array, y: Array, d: Array) -> Array:
    """Returns the points (..., 3), baselines, at left positions x, y of disparity d, pixels."""
    return np.stack([(x - CX) / d, (y - CY) / d, FOCAL / d], axis=-1)


def unit(v: Array) -> Array:
    """Returns vectors (..., 3) scaled to length 1."""
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def polygon(corners: list[tuple[float, float]] | Array) -> Shape:
    """Returns a convex polygon with corners (N, 2), pixels, in either order."""
    p = np.asarray(corners, dtype=float)
    n = (np.roll(p, -1, axis=0) - p)[:, ::-1] * (1.0, -1.0)
    n *= np.sign(((p - p.mean(axis=0)) * n).sum(axis=1, keepdims=True))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    edges = list(zip(n[:, 0], n[:, 1], (n * p).sum(axis=1), strict=True))
    return lambda x, y: np.maximum.reduce([x * nx + y * ny - at for nx, ny, at in edges])


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Shape:
    """Returns an ellipse with a centre and radii in pixels, turned by radians."""
    (ux, uy), (vx, vy) = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

    def distance(x: Array, y: Array) -> Array:
        u, v = (x - cx) * ux + (y - cy) * uy, (x - cx) * vx + (y - cy) * vy
        return (np.hypot(u / rx, v / ry) - 1.0) * min(rx, ry)

    return distance


def perforated(outline: Shape, x0: float, y0: float, pitch: float, radius: float) -> Shape:
    """Returns an outline with round holes of a radius on a square lattice of a pitch, pixels."""

    def distance(x: Array, y: Array) -> Array:
        u, v = (np.mod(w + pitch / 2, pitch) - pitch / 2 for w in (x - x0, y - y0))
        inside = outline(x, y)
        return np.where(inside < -6.0, radius - np.hypot(u, v), inside)

    return distance


def lattice(i: Array, j: Array, seed: int) -> Array:
    """Returns a random value in [0, 1) for every lattice point (i, j) of whole numbers."""
    h = i.astype(np.int64) * 374761393 + j.astype(np.int64) * 668265263 + seed * 974634777
    h = (h & 0xFFFFFFFF).astype(np.uint32)
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return (h ^ (h >> np.uint32(16))) / 2.0**32


def noise(s: Array, t: Array, seed: int, pixels: Array, count: int = 4) -> Array:
    """Returns octaves of smooth noise around 0 at (s, t), cells of so many pixels, same shape."""
    total = np.zeros_like(s)
    for scale, loudness, k in ((2.0**k, 0.7**k, seed + 31 * k) for k in range(count)):
        i, j = np.floor(s * scale), np.floor(t * scale)
        u, v = (w * w * (3.0 - 2.0 * w) for w in (s * scale - i, t * scale - j))
        low, high = (lattice(i, j + n, k) * (1 - u) + lattice(i + 1, j + n, k) * u for n in (0, 1))
        fade = np.clip(pixels / scale - 1.0, 0.0, 1.0)  # of octaves too fine for a pixel
        total += loudness * fade * (low * (1 - v) + high * v - 0.5)
    return total


def weave(name: str, s: Array, t: Array, seed: int, pixels: Array) -> Array:
    """Returns the share of the second colour at (s, t), cells of so many pixels, same shape."""
    row = np.floor(t)
    cloud = noise(s, t, seed, pixels)
    if name == "planks":
        tone = lattice(np.floor(s / 5.0 + lattice(row, row, seed)), row, seed + 7)
        fibre = noise(s * 0.6, t * 4.0, seed, pixels / 2, 3)
        return 0.15 + 0.6 * tone + 0.9 * fibre - 0.5 * (t - row < 0.05)
    if name == "bricks":
        over = s / 2.0 + 0.5 * np.mod(row, 2.0)
        joint = (np.mod(over, 1.0) < 0.06) | (t - row < 0.12)
        return np.where(joint, 1.0, 0.5 * lattice(np.floor(over), row, seed))
    return {
        "checks": np.mod(np.floor(s) + row, 2.0),
        "stripes": 0.5 + 0.5 * np.tanh(3.0 * np.sin(np.pi * s)),
        "dots": 0.5 + 0.5 * np.tanh(6.0 - 20.0 * np.hypot(np.mod(s, 1.0) - 0.5, t - row - 0.5)),
        "marble": 0.5 + 0.5 * np.sin(3.0 * s + 9.0 * cloud),
        "cloud": 0.5 + cloud,
        "plain": 0.5 + 0.15 * cloud,
    }[name]


def shadow(caster: Layer, points: Array, light: Array) -> Array:
    """Returns how far, 0 to 1, a layer hides the light (3,) from points (N, 3), baselines."""
    way, n, centre = light - points, caster.normal(), None
    if caster.bump and np.isfinite(caster.bump[3]):  # a ball: its disc that faces the light
        x, y, radius = (np.array(v) for v in caster.bump[:3])
        d = caster.disparity(x - radius, y)
        centre = point_at(x, y, d)
        n = (light - centre) / ((light - centre) @ centre)
    share = (1.0 - points @ n) / np.where(way @ n == 0.0, 1e-9, way @ n)
    valid = (share > 1e-3) & (share < 0.95)
    share = np.where(valid, share, 0.5)
    met = points + share[:, None] * way
    if centre is not None:
        inside = np.linalg.norm(met - centre, axis=-1) * d - radius
    else:
        d = FOCAL / met[:, 2]
        inside = caster.shape(CX + met[:, 0] * d, CY + met[:, 1] * d)
    width = 1.2 * d * share / (1.0 - share) + 0.5  # of half the penumbra, pixels
    soft = np.clip(0.5 - 0.5 * inside / width, 0.0, 1.0)
    return valid * soft * soft * (3.0 - 2.0 * soft)


def shade(layers: list[Layer], index: int, x: Array, y: Array, light: Array) -> Array:
    """Returns the linear colours (N, 3) of one layer at left positions x, y, each (N,), pixels."""
    layer = layers[index]
    d = layer.disparity(x, y)
    points = point_at(x, y, d)
    if layer.bump:
        bx, by, rx, ry, _ = layer.bump
        u, v = (x - bx) / rx, (y - by) / ry
        w = np.sqrt(np.maximum(1.0 - u * u - v * v, 1e-4))
        facing = unit(np.stack([u, v, -w], axis=-1))
        s = np.arctan2(u, w) * rx / layer.cell
        t = (np.arcsin(np.clip(v, -1.0, 1.0)) * ry if np.isfinite(ry) else y - by) / layer.cell
        pixels = layer.cell * w
    else:
        origin = np.array(layer.origin)
        d0 = layer.disparity(*origin)
        ahead = unit(layer.normal())
        along = unit(np.cross((0.0, 0.0, 1.0) if abs(ahead[1]) > 0.9 else (0.0, 1.0, 0.0), ahead))
        offset = (points - point_at(*origin, d0)) * (d0 / layer.cell)
        s, t = offset @ along, offset @ np.cross(ahead, along)
        pixels = layer.cell * d / d0 * np.abs(unit(points) @ ahead)
        facing = np.broadcast_to(-ahead, points.shape)
    cos, sin = np.cos(layer.turn), np.sin(layer.turn)
    s, t = s * cos + t * sin, t * cos - s * sin
    weight = np.clip(weave(layer.pattern, s, t, layer.seed, pixels), 0.0, 1.0)[:, None]
    first, second = (np.array(list(bytes.fromhex(c))) / 255.0 for c in layer.colours.split())
    fine = layer.cell / 8.0  # grains are some pixels wide whatever the size of the texture's cells
    grain = noise(s * fine, t * fine, layer.seed + 5, pixels / fine, 3)[:, None]
    albedo = first**2.2 * (1 - weight) + second**2.2 * weight
    albedo *= np.clip(1.0 + layer.grain * grain, 0.2, 2.0)

    hidden = np.zeros_like(x)
    for k, other in enumerate(layers):
        if other.shape and k != index and (not layer.group or other.group != layer.group):
            hidden = np.maximum(hidden, shadow(other, points, light))
    to_light = unit(light - points)
    diffuse = np.clip((facing * to_light).sum(axis=-1), 0.0, 1.0)
    shine = np.clip((facing * unit(to_light - unit(points))).sum(axis=-1), 0.0, 1.0) ** 40
    lit = (1.0 - hidden)[:, None] * (1.0, 0.94, 0.84)
    sky = (0.34 - 0.12 * facing[:, 1:2]) * (0.88, 0.95, 1.1)
    gloss = 0.3 * shine[:, None] * lit if layer.bump else 0.0
    return albedo * (sky + 0.95 * diffuse[:, None] * lit) + gloss


def trace(layers: list[Layer], x: Array, y: Array, right: bool) -> tuple[Array, Array, Array]:
    """Returns the nearest layer's index, left x and disparity (pixels) at positions x, y (H, W)."""
    best = np.full(x.shape, -1), x, np.zeros_like(x)
    for k, layer in enumerate(layers):
        x_left = layer.left_x(x, y) if right else x
        d = layer.disparity(x_left, y)
        hit = d > best[2]
        if layer.shape:
            hit &= layer.shape(x_left, y) < 0.0
        best = tuple(np.where(hit, *pair) for pair in zip((k, x_left, d), best, strict=True))
    return best


def picture(layers: list[Layer], light: Array, right: bool) -> Array:
    """Returns one view as sRGB colours (HEIGHT, WIDTH, 3) in [0, 1]."""
    n = SUPERSAMPLE
    y, x = np.mgrid[0 : HEIGHT * n, 0 : WIDTH * n] / n - (n - 1) / (2 * n)
    index, x, _ = trace(layers, x, y, right)
    colour = np.zeros((*x.shape, 3))
    for k in np.unique(index):
        colour[index == k] = shade(layers, k, x[index == k], y[index == k], light)
    colour = colour.reshape(HEIGHT, n, WIDTH, n, 3).mean(axis=(1, 3))
    return np.clip(colour, 0.0, 1.0) ** (1 / 2.2)


def ground(floor: float, pattern: str, colours: str, cell: float) -> Layer:
    """Returns a floor so many baselines below the cameras."""
    return Layer((0.0, 1 / floor, -CY / floor), None, pattern, colours, cell, (224, 210), 70)


def box(floor: float, x: float, d: float, size: tuple, yaw: float, **look: object) -> list[Layer]:
    """Returns five faces of a box.

    Args:
        floor: Height of the cameras above the floor that it stands on, baselines.
        x: Left position of the centre, pixels.
        d: Disparity of the centre, pixels.
        size: Width, height and depth, baselines.
        yaw: Rotation about the vertical, radians.
        look: Further arguments of every layer.
    """
    axes = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    axes *= np.array(size)[:, None] / 2
    centre = np.array([(x - CX) / d, floor - size[1] / 2, FOCAL / d])
    faces = []
    for k, sign in ((0, -1), (0, 1), (1, -1), (2, -1), (2, 1)):
        middle, u, v = centre + sign * axes[k], axes[k - 1], axes[k - 2]
        corners = middle + np.array([u + v, u - v, -u - v, v - u])
        outline = corners[:, :2] * FOCAL / corners[:, 2:] + (CX, CY)
        a, b, n_z = axes[k] / (axes[k] @ middle)
        plane = (a, b, n_z * FOCAL - a * CX - b * CY)
        origin = tuple(outline.mean(axis=0))
        faces.append(Layer(plane, polygon(outline), origin=origin, seed=9 + k + 2 * sign, **look))
    return faces


def ball(floor: float, x: float, d: float, radius: float, *look: object) -> Layer:
    """Returns a sphere on a floor (baselines) at left x with an outline at d, pixels."""
    y, thin = CY + floor * d - radius, np.sqrt(1.0 - ROUND)
    height = d * radius / FOCAL / (1.0 - thin)
    bump = (x, y, radius, radius, height)
    return Layer((0.0, 0.0, d - height * thin), ellipse(*bump[:4]), *look, bump=bump)


def boxes_scene() -> list[Layer]:
    """Returns boxes and slanted discs in the corner of a room."""
    checks = {"pattern": "checks", "colours": "e8dcc0 2f5d8c", "cell": 11.0, "group": 1}
    clouds = {"pattern": "cloud", "colours": "c8442f f0a04b", "cell": 18.0, "group": 2}
    stripes = {"pattern": "stripes", "colours": "f2e6c9 4d8b57", "cell": 9.0, "group": 3}
    near = ellipse(372, 190, 34, 36, 0.3)
    return [
        ground(3.2, "planks", "7a4a28 d9a066", 24.0),
        Layer((0.012, 0.0, 7.0), None, "bricks", "a9553f d8c8b4", 11.0),
        Layer((0.16, 0.0, -47.0), None, "planks", "2f6f78 9fd0c4", 20.0, (400, 92), turn=1.57),
        *box(3.2, 150, 26, (2.9, 2.4, 2.6), 0.5, **checks),
        *box(3.2, 262, 38, (2.0, 1.5, 1.8), -0.45, **clouds),
        *box(3.2, 330, 22, (2.0, 4.2, 2.0), 0.3, **stripes),
        Layer(
            (0.1, -0.05, 6.4), ellipse(92, 54, 34, 30), "marble", "f4e3b2 d07a2d", 20.0, (92, 54)
        ),
        Layer((-0.2, 0.1, 121.0), near, "dots", "8f3f7e ffe0ea", 14.0, (372, 190), 6, turn=0.4),
    ]


def curves_scene() -> list[Layer]:
    """Returns balls and a column behind bars and a screen with holes."""
    column = polygon([(140, -99), (188, -99), (188, 400), (140, 400)])
    bulge = (164.0, 0.0, 24.0, np.inf, 2.2)
    screen = perforated(polygon([(346, 9), (440, 5), (445, 190), (349, 186)]), 391, 28, 28, 9)
    layers = [
        ground(2.6, "checks", "39414f d9d4c7", 34.0),
        Layer((-0.01, 0.0, 12.0), None, "cloud", "3f6291 9cc3de", 24.0, seed=71),
        Layer((-0.09, 0.0, 18.0), None, "bricks", "c08a5a efe0c6", 10.0, (40, 92), 72),
        Layer((0.0, 0.0, 18.0), column, "marble", "f3ece0 9d8f86", 16.0, seed=11, bump=bulge),
        ball(2.6, 250, 36, 38, "marble", "f6c445 c2361f", 15.0, (0, 0), 12),
        ball(2.6, 318, 27, 25, "checks", "f2efe4 2a8f7b", 9.8),
        ball(2.6, 110, 44, 30, "cloud", "6a3fa0 e59ad0", 14.0, (0, 0), 14),
        Layer((0.05, 0.02, 18.0), screen, "cloud", "d9822b f6d186", 12.0, (396, 92), 15),
    ]
    for k, (x, lean) in enumerate(((205, -14), (292, 8), (330, -10))):
        bar = polygon([(x, -9), (x + 5, -9), (x + lean + 5, 265), (x + lean, 265)])
        plane = (0.0, 0.02, 68.0 + 6 * k)
        look = ("stripes", "20242c e8b23a", 9.0, (x, 92), 20 + k)
        layers.append(Layer(plane, bar, *look, turn=1.2 + k / 3))
    return layers


def clutter_scene() -> list[Layer]:
    """Returns many floating sheets of paper, one of them blank and one a grating."""
    rng = np.random.default_rng(4)
    blank = polygon([(24, 24), (150, 16), (156, 118), (30, 126)])
    grating = polygon([(300, 120), (424, 132), (418, 232), (294, 216)])
    layers = [
        Layer((0.004, 0.006, 4.0), None, "cloud", "14505c 5fb0a8", 22.0, seed=30),
        Layer((0.02, 0.0, 9.0), blank, "plain", "f1e8d6 dccfae", 90.0, grain=0.06, seed=31),
        Layer((-0.02, 0.01, 24.0), grating, "stripes", "f2f2ee 2b3a55", 4.5, (360, 176), grain=0.2),
    ]
    pairs = ("e4572e f6e7cb", "f3a712 7d4f9e", "b5d99c 29335c", "4f86c6 f6e7cb")
    pairs += ("c94c7c f9d5a7", "2b3a67 f3a712", "f6e7cb d1495b")
    for k, spot in enumerate(rng.permutation(30)):
        d = 9.0 * 9.4 ** (k / 29)
        x, y = 32 + 75 * (spot % 6), 26 + 51 * (spot // 6)
        x, y = x + 44 * (rng.random() - 0.5) + 0.2 * d, y + 32 * (rng.random() - 0.5)
        radius, turn = 16 + 15 * rng.random(), np.pi * rng.random()
        corners = 2 * np.pi * np.arange(3 + k % 4) / (3 + k % 4) + turn
        corners = np.stack([x + radius * np.cos(corners), y + radius * np.sin(corners)], axis=1)
        shape = polygon(corners) if k % 3 else ellipse(x, y, radius, 0.75 * radius, turn)
        a, b = rng.uniform(-0.3, 0.3, 2) * d / 90
        pattern = ("cloud", "dots", "checks", "marble", "stripes")[k % 5]
        look = (pairs[k % 7], 8 + 6 * rng.random(), (x, y), 100 + k)
        layers.append(Layer((a, b, d - a * x - b * y), shape, pattern, *look, turn=turn))
    return layers


def residual(layers: list[Layer], left: Array, right: Array) -> tuple[float, float]:
    """Returns the views' (H, W, 3) median difference (0 to 255) at pixels seen twice, and these."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    index, _, d = trace(layers, x, y, right=False)
    index_right, x_back, _ = trace(layers, x - d, y, right=True)
    seen = (index_right == index) & (np.abs(x_back - x) < 1e-3) & (x >= d)
    low = np.clip(np.floor(x - d), 0, WIDTH - 2).astype(int)
    share, rows = (x - d - low)[..., None], y.astype(int)
    warped = right[rows, low] * (1 - share) + right[rows, low + 1] * share
    return 255 * float(np.median(np.abs(warped - left)[seen])), float(seen.mean())


def save(values: Array, path: Path, **options: object) -> None:
    """Writes an image (H, W) or (H, W, 3) beside its path, then renames it: it appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"partial-{path.name}")
    Image.fromarray(values).save(beside, **options)
    beside.replace(path)


def main() -> None:
    """Renders the scenes, writes their files and prints how well the views agree."""
    parser = argparse.ArgumentParser(description="Render the sample stereo pairs.")
    parser.add_argument("--output", type=Path, default=Path("datasets/samples"))
    root = parser.parse_args().output / "FlyingThings3D"
    lights = np.array([[-5.0, -9.0, 4.0], [-4.0, -8.0, 3.5], [-6.0, -8.0, 3.0]])  # baselines
    for k, scene in enumerate((boxes_scene, curves_scene, clutter_scene)):
        layers, rng = scene(), np.random.default_rng(k)
        folder = Path("TEST", "A", f"{k:04d}")
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
        truth = trace(layers, x, y, right=False)[2].astype(np.float32)
        save(truth, root / "disparity" / folder / "left" / "0006.pfm")
        views = [picture(layers, lights[k], right) for right in (False, True)]
        for side, view, gain in zip(("left", "right"), views, (1.0, 1.03), strict=True):
            clean = np.rint(255 * view).astype(np.uint8)
            blurred = np.array(Image.fromarray(clean).filter(ImageFilter.GaussianBlur(0.5)))
            final = 255 * gain * (blurred / 255) ** (1 / gain)
            final += rng.normal(0.0, 1.5, (HEIGHT, WIDTH, 1))
            final = np.rint(np.clip(final, 0, 255)).astype(np.uint8)
            for name, image in (("cleanpass", clean), ("finalpass", final)):
                save(image, root / f"frames_{name}" / folder / side / "0006.png", optimize=True)
        median, seen = residual(layers, *views)
        span = f"{truth.min():.1f} to {truth.max():.1f} px, {seen:.1%} seen in both views"
        print(f"scene {k}: disparity {span}, median colour difference {median:.2f} of 255")


if __name__ == "__main__":
    main()
