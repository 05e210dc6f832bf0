"""A conversation whose last turn is the preferred reply, with the rejected one beside it: OpenPipe, ms-swift.

https://docs.openpipe.ai (`rejected_message`), https://github.com/modelscope/ms-swift (`rejected_response`). Without the
rejected reply the same record would be an SFT demonstration.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import preferred
from dpo_pipeline.annotations.formats.trl import split_at_last_turn
from dpo_pipeline.annotations.records import Part, text_of, turns_of
from dpo_pipeline.annotations.rules import Rules

NAME = "messages_rejected"

_REJECTED = ("rejected_message", "rejected_response")


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum("messages" in record and any(name in record for name in _REJECTED) for record in sample) / len(sample)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    turns = turns_of(record.get("messages"), "messages")
    name = next((name for name in _REJECTED if name in record), _REJECTED[0])
    held = record.get(name)
    other = turns_of([held], name) if isinstance(held, dict) else (("assistant", text_of(record, name)),)
    prompt, better, worse = split_at_last_turn(turns, (*turns[:-1], *other), names=("messages", name))
    return (preferred(prompt, better, worse, rules),)
