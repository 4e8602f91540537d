"""Measurements of time and memory, with the machine and commit in the JSON.

``attention.py`` measures the attentions, ``inference.py`` and ``training.py`` the networks, on what
``bench.py`` sets up; ``ceilings.py`` measures the machine, ``measure.py`` times and weighs a call.
"""
