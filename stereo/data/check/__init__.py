"""The check of a data set: files present, missing and damaged."""

from stereo.data.check.catalogue import list_datasets
from stereo.data.check.check import check_dataset

__all__ = ["check_dataset", "list_datasets"]
