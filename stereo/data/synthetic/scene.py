"""What is in a scene and how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stereo.data.synthetic import space
from stereo.data.synthetic.backdrop import View, perspective
from stereo.data.synthetic.config import HEAP, SyntheticConfig
from stereo.data.synthetic.meshes import Mesh, Posed, lambert
from stereo.data.synthetic.places import Contents, furnish
from stereo.data.synthetic.rng import SceneRng, rounded
from stereo.data.synthetic.surface import Surface


@dataclass(frozen=True)
class Look:
    """What a surface looks like.

    Texture coordinates are (s0 x + s1 y + s2) / d and (t0 x + t1 y + t2) / d at left (x, y): on a
    plane this is a picture in true perspective.
    """

    texture: int
    """Which of the scene's textures."""
    mapping: tuple[float, float, float, float, float, float]
    """(s0, s1, s2, t0, t1, t2), texels of the texture's finest level."""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factor of red, green and blue."""
    contrast: float = 1.0
    """Of the texture about ``level``; 0 for none."""
    level: float = 0.5
    """The value that contrast keeps."""
    grain: float = 0.0
    """Strength of noise that is finer than the texture."""
    grain_scale: float = 0.1
    """Its cells per texel."""
    light: tuple[float, float] = (0.0, 0.0)
    """Where the light comes from: how much brighter per unit of slope to the right and down."""
    blotches: float = 0.0
    """Strength of large soft shadows."""
    shine: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """(left column, row, 1 / radius, strength, shift in the right view), pixels."""
    mirror: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """(texture, strength, disparity of the mirrored picture in pixels, texels per pixel)."""


@dataclass(frozen=True)
class Layer:
    """One surface, its look, and the share of the scene's light that falls on it."""

    surface: Surface
    look: Look
    light: float = 1.0
    casts: bool = True
    """Whether it casts a shadow."""
    thing: int = 0
    """Number of the object that it is part of, from 1; 0 for none."""


@dataclass(frozen=True)
class Paint:
    """How one texture of the scene is made."""

    size: int
    """Side, texels."""
    photograph: bool = False
    """Cut from a photograph."""
    repeated: bool = False
    """Periodic."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Layers, far ones first, meshes, and the textures that looks refer to by number."""

    view: View
    layers: tuple[Layer, ...]
    paints: tuple[Paint, ...]
    lamp: np.ndarray
    """(3,) direction towards the light."""
    sun: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Cast shadows: columns and rows per pixel of disparity between the surface that casts and
    the one that catches it, and the share of light that they take."""
    meshes: tuple[Posed, ...] = ()
    mesh_looks: tuple[Look, ...] = ()
    grey: tuple[float, float, float] | None = None
    """Shares of red, green and blue in a grey picture; None for colours."""
    haze: float = 0.0
    """The disparity, pixels, at which haze leaves 1/e of the light; 0 for none."""
    dots: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    """A projected pattern: strength, cell in pixels, the projector's distance from the left camera
    in baselines, and the disparity from which on it is at full strength."""


LARGE, SMALL, REPEATED = range(0, 3), range(3, 11), range(11, 13)


def compose(
    config: SyntheticConfig, rng: SceneRng, *, photographs: bool, meshes: Sequence[Path] = ()
) -> Scene:
    """Return a random scene.

    Args:
        config: size, range and strengths.
        rng: the source of chance.
        photographs: whether there are any to cover surfaces with.
        meshes: those to pick from.
    """
    place = rng.pick(config.places)
    view = View.draw(config, place, rng)
    share = config.photographs if photographs else 0.0
    large = 512 if config.height * config.width > 40000 else 256
    paints = [Paint(large, photograph=rng.chance(share)) for _ in LARGE]
    paints += [Paint(256, photograph=rng.chance(share)) for _ in SMALL]
    paints += [Paint(256, repeated=True) for _ in REPEATED]
    view, contents = furnish(view, place, config, meshes, rng)
    painter = _Painter(view, config, _Mood.draw(rng, place), rng)
    ground = [painter.layer(s, style, large=True) for s, style in contents.ground]
    backdrop, layers = ground[0], ground[1:]
    for number, shape in enumerate(contents.objects, start=1):
        parts = painter.object(shape, [backdrop, *layers])
        layers += [replace(part, thing=number) for part in parts]
    layers.sort(key=lambda layer: _depth(layer.surface, view))
    posed, looks = painter.meshes(contents)
    sun = (0.0, 0.0, 0.0)
    if rng.chance(0.6):
        sun = (rng.uniform(-1.5, 1.5), rng.uniform(-0.2, 1.5), rng.uniform(0.2, 0.7))
    grey, dots = None, (0.0, 1.0, 0.0, 1.0)
    if rng.chance(0.12):
        weights = [rng.uniform(0.05, 1.0) for _ in range(3)]
        grey = (weights[0] / sum(weights), weights[1] / sum(weights), weights[2] / sum(weights))
        if rng.chance(0.4):
            cell, aside = rng.log_uniform(1.3, 4.0), rng.uniform(-0.5, 1.5)
            dots = (rng.log_uniform(0.1, 1.0), cell, aside, view.high * rng.uniform(0.1, 0.6))
    return Scene(
        *(view, (backdrop, *layers), tuple(paints), painter.mood.lamp, sun),
        *(tuple(posed), tuple(looks), grey, 0.05 * config.max_disparity * config.haze, dots),
    )


def _depth(surface: Surface, view: View) -> float:
    outline = surface.outline
    x, y = (outline.x, outline.y) if outline else (view.width / 2, view.height / 2)
    a, b, c = surface.plane
    return a * x + b * y + c


@dataclass(frozen=True, eq=False)
class _Mood:
    """What the surfaces of a scene have in common."""

    dullness: float
    camouflage: float
    plain: float
    light: tuple[float, float]
    lamp: np.ndarray

    @staticmethod
    def draw(rng: SceneRng, place: str) -> "_Mood":
        cos, sin = rng.direction()
        strength = rng.uniform(0.0, 1.2)
        lamp = np.array([cos, -0.3 - rng.uniform(0.0, 1.2), sin * 0.7 - 0.5])
        return _Mood(
            dullness=rng.weighted({1.0: 6, 0.6: 2, 0.3: 0.7}),
            camouflage=rng.weighted({0.0: 4, 0.1: 4, 0.6: 0.7}),
            plain=rng.weighted({0.08: 4, 0.2: 4, 0.5: 1 if place == HEAP else 1.5}),
            light=(cos * strength, sin * strength),
            lamp=lamp / np.linalg.norm(lamp),
        )


@dataclass(frozen=True, eq=False)
class _Painter:
    """Gives surfaces and meshes their looks."""

    view: View
    config: SyntheticConfig
    mood: _Mood
    rng: SceneRng

    def layer(self, surface: Surface, style: str, *, large: bool) -> Layer:
        outline = surface.outline
        x = outline.x if outline else self.rng.uniform(0.2, 0.8) * self.view.width
        y = outline.y if outline else self.rng.uniform(0.5, 0.95) * self.view.height
        a, b, c = surface.plane
        d = max(a * x + b * y + c, 0.3 * self.view.low)
        size = max(outline.along, outline.across) if outline else self.view.height * 0.6
        large = large or style in ("wall", "facade", "leaves", "sky")
        look = self._look((x, y, d), size, surface.plane, style, large=large)
        n = space.normal(surface.plane, self.view)
        at = space.point(self.view, x, y, d)
        lit = 1.0 if style == "sky" else lambert(n / np.linalg.norm(n), at, self.mood.lamp)
        return Layer(
            surface, look, rounded(float(lit)), style not in ("sky", "road", "line", "pane")
        )

    def object(self, shape: list[tuple[Surface, str]], behind: list[Layer]) -> list[Layer]:
        """Return the layers of an object, whose sides of one style share a look."""
        layers: list[Layer] = []
        hidden = self.rng.pick(behind).look if self.rng.chance(self.mood.camouflage) else None
        large = self.rng.chance(0.15)
        first: dict[str, Look] = {}
        for surface, style in shape:
            layer = self.layer(surface, style, large=large)
            if style in first and self.rng.chance(0.85):
                same = first[style]
                layer = replace(layer, look=replace(same, mapping=layer.look.mapping))
            else:
                first[style] = layer.look
            if hidden is not None and style == "object":
                kept = layer.look
                layer = replace(layer, look=replace(hidden, shine=kept.shine, mirror=kept.mirror))
            layers.append(layer)
        return layers

    def meshes(self, contents: Contents) -> tuple[list[Posed], list[Look]]:
        """Return the meshes with the numbers of their looks, a third under a random texture."""
        posed: list[Posed] = []
        looks: list[Look] = []
        for mesh, pose in contents.meshes:
            posed.append(Posed(mesh, pose, len(looks)))
            looks += self._mesh_looks(mesh, pose)
        return posed, looks

    def _mesh_looks(self, mesh: Mesh, pose: space.Pose) -> list[Look]:
        """Return a look per material and axis along which its picture is thrown on the mesh."""
        view, rng = self.view, self.rng
        middle = pose.apply(np.array([0.0, -0.3, 0.0]))
        d = view.width / max(float(middle[2]), 1.0)
        x, y = (float(middle[k]) * d + (view.width, view.height)[k] / 2 for k in (0, 1))
        scale = float(np.linalg.norm(pose.turn[:, 0]))
        size, flat = scale * d / 2, (0.0, 0.0, d)
        covered = self._look((x, y, d), size, flat, "object", large=False)
        random = rng.chance(1 / 3)
        looks = []
        for colour in mesh.colours:
            look = covered
            if not random:
                look = self._look((x, y, d), size, flat, "object", large=False)
                if not np.isnan(colour).any():
                    gain = rng.uniform(0.9, 1.6)
                    tint = [max(float(v), 0.01) * gain for v in colour]
                    contrast = rng.pick([0.02, 0.05, 0.1, 0.3])
                    look = replace(
                        look, tint=(tint[0], tint[1], tint[2]), contrast=contrast, level=0.85
                    )
            density = rng.log_uniform(0.5, 2.0) * d
            for axis in range(3):
                e = np.delete(pose.turn / scale, axis, axis=1) * density
                row = [
                    (e[0, k], e[1, k],
                     e[2, k] * view.width - (e[0, k] * view.width + e[1, k] * view.height) / 2)
                    for k in (0, 1)
                ]  # fmt: skip
                s, t = ([float(v) for v in r] for r in row)
                looks.append(replace(look, mapping=(s[0], s[1], s[2], t[0], t[1], t[2])))
        return looks

    def _look(
        self,
        at: tuple[float, float, float],
        size: float,
        plane: tuple[float, float, float],
        style: str,
        *,
        large: bool,
    ) -> Look:
        """Draw the look of a surface about left (x, y) of a disparity, of a size in pixels."""
        rng, config, mood, (x, y, d) = self.rng, self.config, self.mood, at
        usual = 0.7 if style == "facade" else 0.12 if large else 0.08
        repeated = rng.chance(max(config.repetition, usual))
        numbers = REPEATED if repeated else LARGE if large else SMALL
        density = rng.log_uniform(0.5, 1.6) if large else rng.log_uniform(0.35, 2.5)
        bright = rng.log_uniform(0.3, 2.2)
        pale = rng.pick([0.15, 0.6, 0.8, 0.9])
        tint = [rng.uniform(pale, 1.1) * bright for _ in range(3)]
        contrast = rng.uniform(0.6, 1.3) * mood.dullness
        grain = 0.0 if repeated else rng.pick([0.0, 0.0, 0.1, 0.3, 0.6])
        if rng.chance(max(config.plain, mood.plain)) or style in ("plain", "wall"):
            # What is left of its texture is for those who look closely.
            contrast = rng.uniform(0.02, 0.2) if large else rng.uniform(0.0, 0.1)
            grain = rng.pick([0.0, 0.05, 0.1, 0.2]) if large else rng.pick([0.0, 0.0, 0.1])
        elif rng.chance(0.05):
            tint = [t * rng.uniform(0.03, 0.2) for t in tint]
        shine = rng.uniform(0.05, 0.6) * config.shine if rng.chance(0.12) else 0.0
        mirror = rng.uniform(0.05, 0.4) * config.reflections if rng.chance(0.08) else 0.0
        look = Look(
            texture=rng.pick(numbers),
            mapping=perspective(plane, self.view, (x, y), d, density, rng),
            tint=(tint[0], tint[1], tint[2]),
            contrast=contrast,
            level=rng.uniform(0.3, 0.7),
            grain=grain,
            grain_scale=rng.log_uniform(0.15, 0.6),
            light=mood.light,
            blotches=rng.pick([0.0, 0.0, 0.3, 0.6]),
            shine=(
                x + rng.uniform(-0.6, 0.6) * size,
                y + rng.uniform(-0.6, 0.6) * size,
                1.0 / (min(size, 80.0) * rng.uniform(0.1, 0.8) + 1.0),
                shine,
                rng.uniform(-0.3, 0.3) * size,
            ),
            mirror=(
                float(rng.pick(LARGE)),
                mirror,
                d * rng.uniform(0.3, 0.9),
                rng.uniform(0.5, 1.5),
            ),
        )
        return self._styled(look, style)

    def _styled(self, look: Look, style: str) -> Look:
        """Change a look to what sky, panes, paint, marks, roads, leaves and tyres look like."""
        rng, quiet = self.rng, replace(look, grain=0.0, blotches=0.0)
        grey = rng.uniform(0.8, 1.1)
        still = (*look.shine[:3], 0.0, 0.0)
        if style == "sky":
            blue = rng.uniform(1.0, 1.8)
            bright = rng.log_uniform(0.7, 4.0)
            tint = (bright, bright * (0.5 + blue / 2) ** 0.5, bright * blue)
            contrast = rng.pick([0.0, 0.1, 0.3, 0.6])
            return replace(
                quiet, tint=tint, contrast=contrast, level=0.7, shine=still, mirror=(0, 0, 0, 1)
            )
        if style == "pane":
            dark = rng.log_uniform(0.02, 0.2)
            strength = rng.uniform(0.1, 0.6) * self.config.reflections
            mirror = (look.mirror[0], strength, *look.mirror[2:])
            return replace(quiet, tint=(dark, dark, dark * grey), contrast=0.1, mirror=mirror)
        if style == "paint":
            shine = (*look.shine[:3], rng.uniform(0.1, 0.7) * self.config.shine, look.shine[4])
            strength = rng.uniform(0.0, 0.15) * self.config.reflections
            mirror = (look.mirror[0], strength, *look.mirror[2:])
            tint = (rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0))
            if rng.chance(0.6):
                tone = rng.log_uniform(0.06, 2.5)
                tint = (tone, tone, tone * grey)
            return replace(quiet, tint=tint, contrast=0.03, shine=shine, mirror=mirror)
        if style == "line":
            return replace(quiet, tint=(2.5, 2.5, 2.5 * grey), contrast=0.2, shine=still)
        if style == "dark":
            dark = rng.uniform(0.03, 0.15)
            return replace(quiet, tint=(dark, dark, dark * grey), contrast=0.3)
        if style == "road":
            tone = rng.log_uniform(0.25, 1.0)
            return replace(
                look, tint=(tone, tone, tone * grey), contrast=rng.uniform(0.1, 0.6), grain=0.4
            )
        if style == "leaves":
            tint = (rng.uniform(0.3, 1.3), rng.uniform(0.7, 1.6), rng.uniform(0.1, 0.7))
            return replace(
                look,
                tint=tint,
                contrast=rng.uniform(0.3, 0.9),
                grain=rng.uniform(0.2, 0.8),
                shine=still,
            )
        return look
