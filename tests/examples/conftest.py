"""Lets tests import the programs under `examples/` as the package that they are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
