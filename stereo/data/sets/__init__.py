"""Data sets by name, and their layouts."""
