"""Export networks to ONNX files, checked in ONNX Runtime.

``graph.py`` traces a network, ``precision.py`` makes it smaller, ``check.py`` compares it with
PyTorch, ``writer.py`` runs the three in turn. ``stereo.matching.onnx_engine`` runs what comes out.
"""

from stereo.export.writer import export

__all__ = ["export"]
