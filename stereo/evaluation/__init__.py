"""Protocols, metrics, regions, reports."""
