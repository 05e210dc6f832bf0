"""Makes `worlds`, the small things to train on, importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "modeling"))
