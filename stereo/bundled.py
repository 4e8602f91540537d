"""What ships with the package: the default model's name, and the sample pairs."""

from pathlib import Path

from stereo.errors import InputError

SGBM = "sgbm"
DEFAULT_MODEL = SGBM
DEFAULT_MAX_DISPARITY = 192

_PACKAGE = Path(__file__).resolve().parent


def samples_root() -> Path:
    """Return the folder of the bundled rendered pairs, Scene Flow's tree.

    Raises:
        InputError: it is neither in the clone nor beside the installed package.
    """
    for folder in (
        _PACKAGE.parent / "datasets" / "samples",
        _PACKAGE.parent / "stereo_bundled" / "samples",
    ):
        if folder.is_dir():
            return folder
    raise InputError(f"the bundled samples are missing from {_PACKAGE}; install the package again")
