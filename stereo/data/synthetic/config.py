"""What a set of rendered scenes is asked to be."""

from dataclasses import dataclass

from stereo.errors import UsageError

DISTRIBUTIONS = ("mixed", "uniform", "log")
PLACES = ROOM, HEAP, OUTDOORS = ("room", "heap", "outdoors")
_STRENGTHS = (
    *("shine", "reflections", "photometric", "noise", "blur", "vignetting"),
    *("misalignment", "haze"),
)
_SHARES = ("photographs", "plain", "repetition", "cabinets")


@dataclass(frozen=True)
class SyntheticConfig:
    """The parameters of a set of rendered scenes; with an index they fix every byte of a pair.

    Raises:
        UsageError: a size, range or strength that cannot be rendered.
    """

    height: int = 256
    """Rows of a view, pixels."""
    width: int = 448
    """Columns of a view, pixels."""
    max_disparity: int = 192
    """Every disparity lies below it, pixels."""
    min_disparity: float = 0.05
    """Every disparity lies above it, pixels; the sky's just above."""
    distribution: str = "mixed"
    """How disparities are drawn: ``uniform`` or ``log`` (as many from 2 to 4 px as from 50 to 100)
    over the whole range in each scene; ``mixed`` draws one of them and the range itself per scene,
    so that shallow and far scenes are among them."""
    places: tuple[str, ...] = PLACES
    """What scenes show, in equal parts: rooms with furniture, dense heaps, outdoors."""
    objects: tuple[int, int] = (10, 30)
    """Minimum and maximum number of objects that float or lie about; heaps hold up to seven times
    as many."""
    textures: str | None = None
    """A folder of images used as textures, searched with its sub-folders; without it textures are
    procedural."""
    meshes: str | None = None
    """A folder of triangle meshes to place among the objects, searched with its sub-folders. It
    needs trimesh and embreex (the extra ``render``), and its pairs may differ in
    rounding from one kind of processor to another."""
    photographs: float = 0.7
    """Share of the surfaces that show a photograph, where there is a folder of them."""
    shine: float = 1.0
    """Strength of highlights, which sit elsewhere on the surface in either view; 0 for none."""
    reflections: float = 1.0
    """Strength of mirrored images, which have a disparity of their own; 0 for none."""
    photometric: float = 1.0
    """Strength of exposure, colour balance and gamma that differ between the views; 0 for none."""
    noise: float = 1.0
    """Strength of sensor noise; 0 for none."""
    blur: float = 1.0
    """Strength of blur, drawn for each view; 0 for none."""
    vignetting: float = 1.0
    """Strength of vignetting, drawn for each view; 0 for none."""
    misalignment: float = 1.0
    """Largest vertical offset of the right view, pixels; 0 for exact rectification."""
    plain: float = 0.0
    """Minimum share of the surfaces without texture; 0 leaves it to each scene."""
    repetition: float = 0.0
    """Minimum share of the surfaces under a periodic texture, half of them weathered; 0 leaves it
    to their kind."""
    haze: float = 0.0
    """Strength of haze: at 1, what has a twentieth of the largest disparity keeps 1/e of its light;
    0 for none."""
    cabinets: float = 0.35
    """Share of the rooms and heaps with a plain cabinet that fills much of the image."""
    frames: int = 1
    """Frames of a sequence. With N above 1, pair i is frame i modulo N of scene i // N, and the
    camera and objects move; 1 for a scene per pair."""
    seed: int = 0
    """Random seed; the sequence of scenes is unlimited."""

    def __post_init__(self) -> None:
        if not (32 <= self.height <= 8192 and 64 <= self.width <= 8192):
            raise UsageError(
                f"a rendered view of {self.width}x{self.height}: the width must lie between 64 and "
                "8192, the height between 32 and 8192"
            )
        if not 8 <= self.max_disparity <= self.width:
            raise UsageError(
                f"max disparity {self.max_disparity}: must lie between 8 and the width "
                f"{self.width} of the views; choose a smaller one or wider views"
            )
        if not 0.01 <= self.min_disparity <= self.max_disparity / 4:
            raise UsageError(
                f"min disparity {self.min_disparity:g}: must lie between 0.01 and a quarter of the "
                f"largest, {self.max_disparity / 4:g}"
            )
        if self.distribution not in DISTRIBUTIONS:
            known = ", ".join(DISTRIBUTIONS)
            raise UsageError(
                f"unknown disparity distribution '{self.distribution}'; known: {known}"
            )
        if not self.places or not set(self.places) <= set(PLACES):
            raise UsageError(f"places {self.places}: expected some of {', '.join(PLACES)}")
        if not 0 <= self.objects[0] <= self.objects[1] <= 200:
            raise UsageError(f"objects {self.objects}: expected 0 <= least <= largest <= 200")
        if not 1 <= self.frames <= 1000:
            raise UsageError(f"{self.frames} frames of a sequence: must lie between 1 and 1000")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} of rendered scenes: expected 0 or more")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"share of {name} {getattr(self, name):g}: must lie in 0..1")
        for name in _STRENGTHS:
            if not 0 <= getattr(self, name) <= 4:
                raise UsageError(f"strength of {name} {getattr(self, name):g}: must lie in 0..4")
