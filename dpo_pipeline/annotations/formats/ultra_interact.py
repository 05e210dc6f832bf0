"""UltraInteract pairs: a trajectory of turns with from and value, and the better and the worse next action.

https://huggingface.co/datasets/openbmb/UltraInteract_pair
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred, share_with
from dpo_pipeline.annotations.records import Part, check_prompt, text_of, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "ultra_interact"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "trajectory", "chosen", "rejected")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    turns = turns_of(record.get("trajectory"), "trajectory", role_key="from", content_key="value")
    return (preferred(check_prompt(turns), text_of(record, "chosen"), text_of(record, "rejected"), rules),)
