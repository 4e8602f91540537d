"""A recipe: every field of a run, read from YAML and overridden on the command line."""

from dataclasses import dataclass, field
from pathlib import Path

from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.sets.layouts import SYNTHETIC
from stereo.data.synthetic import SyntheticConfig
from stereo.errors import UsageError
from stereo.models import NetworkConfig
from stereo.models.config import STRIDE
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig

RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class ValidationConfig:
    """Validation data, which select ``best.safetensors``.

    By default a ``val`` split if there is one, else held-out training pairs; never a test split.
    """

    name: str | None = None
    """Name of the data set; None for that of the training data."""
    root: str | None = None
    """Its folder; None for the training data's."""
    split: str | None = None
    """Its split; None for ``val`` if it has one, else held-out training pairs; with another
    ``root``, ``train`` if it has one, else all pairs."""
    share: float | None = None
    """Share of the training pairs on disk to hold out from training: whole scenes (folders), chosen
    by name. With ``name``, a share of the pairs that both data sets contain. None for 0.1, if there
    is no ``val`` split. Not used if ``root`` or ``split`` names other pairs, or for scenes rendered
    on the fly."""
    render_pass: str | None = None
    """``clean`` or ``final``; None for the training data's."""
    layout: str | None = None
    """Name of its tree, if its folder holds several; None for the training data's."""
    limit: int = 100
    """Number of pairs, sampled evenly from the list."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UsageError(f"data.validation.limit {self.limit}: expected at least 1")
        if self.share is not None and not 0 < self.share < 1:
            raise UsageError(f"data.validation.share {self.share}: expected between 0 and 1")


@dataclass(frozen=True)
class DataConfig:
    """Training data."""

    name: str = SYNTHETIC
    """Name of the data set; ``synthetic`` renders scenes on the fly, or reads those that
    ``stereo data synthesize`` wrote to ``root``."""
    root: str | None = None
    """Its folder."""
    split: str | None = None
    """Its split; None for ``train`` if it has one, else its default."""
    render_pass: str | None = None
    """``clean`` or ``final``, for rendered data on disk."""
    layout: str | None = None
    """Name of its tree, if the folder holds several (Middlebury's sizes: ``F``, ``H``, ``Q``)."""
    unused: str | None = None
    """Scene Flow's ``all_unused_files.txt``, whose frames are left out."""
    skip_damaged: bool = False
    """Report a pair that cannot be read and continue with the next one, instead of stopping."""
    scenes: int = 100_000
    """Scenes in an epoch of ``synthetic``."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Settings of the rendered scenes."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation data."""

    def __post_init__(self) -> None:
        if self.scenes < 1:
            raise UsageError(f"data.scenes {self.scenes}: expected at least 1")


def check_seed(seed: int) -> None:
    """Raise ``UsageError`` unless every generator takes this seed."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed}: expected 0 to {2**32 - 1}")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on."""

    network: NetworkConfig = field(default_factory=lambda: NetworkConfig("psmnet"))
    """The network."""
    data: DataConfig = field(default_factory=DataConfig)
    """Training and validation data."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Augmentation of the training pairs."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and learning rate."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Length, batch and precision of the run."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    seed: int = 0
    """Seed of the initial weights, the sample order and augmentation."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.loss.planes and self.network.upsampling != "unbiased":
            raise UsageError(
                f"loss.planes {self.loss.planes:g}: with network.upsampling "
                f"{self.network.upsampling} the planes lie up to 1.5 px beside the disparities "
                "that the loss gives them; use 'unbiased', or set it to 0"
            )
        crop = self.augmentation.crop
        if crop is not None and any(side % STRIDE for side in crop):
            raise UsageError(f"augmentation.crop {crop}: expected multiples of {STRIDE} pixels")


def recipe_path(name: str) -> Path:
    """Return the file of a shipped recipe, or of the path given.

    Raises:
        UsageError: neither; the message lists the shipped ones.
    """
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise UsageError(f"unknown recipe '{name}'; known: {known}, or the path of a YAML file")
