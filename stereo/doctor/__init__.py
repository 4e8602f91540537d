"""The doctor of a data folder: what is there, what is missing, what is wrong with it."""

from stereo.doctor.catalogue import list_datasets
from stereo.doctor.check import check_dataset

__all__ = ["check_dataset", "list_datasets"]
