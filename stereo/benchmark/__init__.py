"""Measurements of time and memory, with the machine and commit in the JSON."""
