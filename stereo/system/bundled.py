"""Bundled files: the default model, weights and sample pairs."""

from pathlib import Path

from stereo.errors import InputError

SGBM = "sgbm"
ZOO = "zoo:"  # before the name of a network of the library stereo_matching
DEFAULT_MODEL = "ea_stereo"
DEFAULT_MAX_DISPARITY = 192

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE.parent / "stereo_bundled"


def samples_root() -> Path:
    """Return the folder of the bundled rendered pairs, Scene Flow's tree.

    Raises:
        InputError: it is neither in the clone nor beside the installed package.
    """
    for folder in (_PACKAGE.parent / "datasets" / "samples", _INSTALLED / "samples"):
        if folder.is_dir():
            return folder
    raise InputError(f"the bundled samples are missing from {_PACKAGE}; install the package again")


def bundled_weights(network: str) -> Path | None:
    """Return the bundled checkpoint of a network, or None."""
    for folder in (_PACKAGE.parent / "checkpoints", _INSTALLED / "checkpoints"):
        path = folder / f"{network}.safetensors"
        if path.is_file():
            return path
    return None
