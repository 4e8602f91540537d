"""What an editable install puts on the path: it loads the clone's package in its own place.

The clone itself must not be on the path, or ``datasets`` and ``checkpoints`` could be imported. And
a finder of modules, hatchling's other way, is asked too late where a clone named ``stereo`` lies in
the current folder: Python takes that folder for a namespace package, to which it prefers any
``stereo/__init__.py`` of the path.
"""

import importlib.util
import sys
from pathlib import Path

_path = Path(__file__).resolve().parents[3] / "stereo" / "__init__.py"
_spec = importlib.util.spec_from_file_location("stereo", _path)
assert _spec is not None and _spec.loader is not None
sys.modules["stereo"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["stereo"])
