"""The package's version; stored in every checkpoint and result."""

__version__ = "0.1.0"
