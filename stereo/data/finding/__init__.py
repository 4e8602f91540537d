"""Pairs, sequences and sources: found by name."""
