"""What is in a scene: a room, things of many kinds and depths in it, and how they look."""

from dataclasses import dataclass, replace

from stereo.data.synthetic import room, things
from stereo.data.synthetic.config import SyntheticConfig
from stereo.data.synthetic.dice import Dice
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
    """One surface and its look."""

    surface: Surface
    look: Look


@dataclass(frozen=True)
class Paint:
    """How one texture of the scene is made."""

    size: int
    """Side, texels."""
    photograph: bool = False
    """Cut from a photograph."""
    repeated: bool = False
    """Strictly periodic."""


@dataclass(frozen=True)
class Scene:
    """Layers, far ones first, and the textures that they refer to by number."""

    layers: tuple[Layer, ...]
    paints: tuple[Paint, ...]
    sun: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Cast shadows: columns and rows per pixel of disparity between the surface that casts and
    the one that catches it, and the share of light that they take."""


LARGE, SMALL, REPEATED = range(0, 3), range(3, 9), range(9, 11)


def compose(config: SyntheticConfig, dice: Dice, *, photographs: bool) -> Scene:
    """Return a random scene.

    Args:
        config: size, range and strengths.
        dice: the source of chance.
        photographs: whether there are any to cover surfaces with.
    """
    view = room.View.draw(config, dice)
    share = config.photographs if photographs else 0.0
    large = 512 if config.height * config.width > 40000 else 256
    paints = [Paint(large, photograph=dice.chance(share)) for _ in LARGE]
    paints += [Paint(256, photograph=dice.chance(share)) for _ in SMALL]
    paints += [Paint(256, repeated=True) for _ in REPEATED]
    mood = _Mood.draw(dice)
    walls = room.room(view, dice)
    view = replace(view, room=tuple(walls))
    layers = [Layer(s, _look(s, view, config, mood, dice, large=True)) for s in walls]
    backdrop, layers = layers[0], layers[1:]
    for _ in range(dice.whole(*config.objects)):
        behind = dice.pick([backdrop, *layers]).look
        hidden = dice.chance(mood.camouflage)
        look = None
        for surface in things.thing(view, dice):
            if look is None or dice.chance(0.35):
                look = _look(surface, view, config, mood, dice, large=dice.chance(0.15))
            else:  # sides of one thing share a look, each with its own light and perspective
                own = _look(surface, view, config, mood, dice, large=False)
                shade = dice.uniform(0.6, 1.2)
                look = replace(
                    look,
                    mapping=own.mapping,
                    tint=(look.tint[0] * shade, look.tint[1] * shade, look.tint[2] * shade),
                )
            if hidden:
                look = replace(behind, shine=look.shine, mirror=look.mirror)
            layers.append(Layer(surface, look))
    layers.sort(key=lambda layer: _depth(layer.surface, view))
    sun = (0.0, 0.0, 0.0)
    if dice.chance(0.6):
        sun = (dice.uniform(-0.9, 0.9), dice.uniform(-0.2, 0.8), dice.uniform(0.2, 0.8))
    return Scene((backdrop, *layers), tuple(paints), sun)


@dataclass(frozen=True)
class _Mood:
    """What the surfaces of a scene have in common."""

    brightness: float
    dullness: float
    camouflage: float
    plain: float
    light: tuple[float, float]

    @staticmethod
    def draw(dice: Dice) -> "_Mood":
        cos, sin = dice.direction()
        strength = dice.uniform(0.0, 1.2)
        return _Mood(
            brightness=dice.weighted({1.0: 6, 0.6: 2, 0.25: 1, 1.4: 1}),
            dullness=dice.weighted({1.0: 6, 0.5: 2, 0.2: 1}),
            camouflage=dice.weighted({0.0: 4, 0.1: 4, 0.6: 1}),
            plain=dice.weighted({0.05: 4, 0.2: 4, 0.6: 1}),
            light=(cos * strength, sin * strength),
        )


def _depth(surface: Surface, view: "room.View") -> float:
    outline = surface.outline
    x, y = (outline.x, outline.y) if outline else (view.width / 2, view.height / 2)
    a, b, c = surface.plane
    return a * x + b * y + c


def _look(
    surface: Surface,
    view: "room.View",
    config: SyntheticConfig,
    mood: _Mood,
    dice: Dice,
    *,
    large: bool,
) -> Look:
    outline = surface.outline
    x = outline.x if outline else dice.uniform(0.2, 0.8) * view.width
    y = outline.y if outline else dice.uniform(0.5, 0.95) * view.height
    a, b, c = surface.plane
    at = max(a * x + b * y + c, 0.3)
    repeated = dice.chance(0.07)
    numbers = REPEATED if repeated else LARGE if large else SMALL
    density = dice.log_uniform(0.5, 1.6) if large else dice.log_uniform(0.35, 2.5)
    tint = [dice.uniform(0.6, 1.1) * mood.brightness for _ in range(3)]
    contrast = dice.uniform(0.5, 1.3) * mood.dullness
    plain, dark = dice.chance(mood.plain), dice.chance(0.06)
    grain = 0.0 if repeated else dice.pick([0.0, 0.0, 0.1, 0.3, 0.6])
    if plain:  # what is left of its texture is for those who look closely
        contrast = dice.uniform(0.02, 0.2) if large else dice.uniform(0.0, 0.08)
        grain = dice.pick([0.0, 0.05, 0.1, 0.2]) if large else 0.0
    if dark:
        tint = [t * dice.uniform(0.03, 0.2) for t in tint]
    size = max(outline.along, outline.across) if outline else view.height * 0.6
    shine = mirror = 0.0
    if dice.chance(0.2):
        shine = dice.uniform(0.05, 0.6) * config.shine
    if dice.chance(0.08):
        mirror = dice.uniform(0.05, 0.4) * config.reflections
    return Look(
        texture=dice.pick(numbers),
        mapping=room.perspective(surface.plane, view, (x, y), at, density, dice),
        tint=(tint[0], tint[1], tint[2]),
        contrast=contrast,
        level=dice.uniform(0.3, 0.7),
        grain=grain,
        grain_scale=dice.log_uniform(0.15, 0.6),
        light=mood.light,
        blotches=dice.pick([0.0, 0.3, 0.6, 0.9]),
        shine=(
            x + dice.uniform(-0.6, 0.6) * size,
            y + dice.uniform(-0.6, 0.6) * size,
            1.0 / (min(size, 80.0) * dice.uniform(0.1, 0.8) + 1.0),
            shine,
            dice.uniform(-0.3, 0.3) * size,
        ),
        mirror=(
            float(dice.pick(LARGE)),
            mirror,
            at * dice.uniform(0.3, 0.9),
            dice.uniform(0.5, 1.5),
        ),
    )
