"""Curves: pictures are drawn by whoever needs one, and nobody else pays for it."""

import subprocess
import sys

TRAINING = """
import sys
from io import BytesIO
import dpo_pipeline.dpo.train, dpo_pipeline.sft.train, dpo_pipeline.dpo.reference
assert "matplotlib" not in sys.modules
from dpo_pipeline.modeling.curves import SFT_PANELS, draw_curves
history = [{"step": step, "loss": 2 / step, "validation/loss": 3 / step, "grad_norm": None} for step in range(1, 80)]
pictures = [BytesIO(), BytesIO()]
for picture in pictures:
    draw_curves(history, picture, panels=SFT_PANELS)
assert pictures[0].getvalue() == pictures[1].getvalue()
assert pictures[0].getvalue().startswith(b"\\x89PNG")
"""


def test_a_training_does_not_import_matplotlib_before_it_draws():
    """It would cost every process of a training 23 MiB and a tenth of its imports; equal histories give equal bytes."""
    subprocess.run([sys.executable, "-c", TRAINING], check=True)
