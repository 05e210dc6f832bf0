"""Google Vertex AI (Gemini) tuning data: `contents` and a scored pair of `completions`; without them, SFT.

https://docs.cloud.google.com/vertex-ai/generative-ai/docs/models/gemini-preference-tuning-prepare (score 1 is the
preferred completion, 0 the other), https://docs.cloud.google.com/vertex-ai/generative-ai/docs/models/gemini-supervised-tuning-prepare
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.kway import pairs_by_rank
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import (
    Demonstration,
    Part,
    Turns,
    Unusable,
    check_conversation,
    check_prompt,
    kind_of,
    shown,
    turns_of,
)
from dpo_pipeline.annotations.rules import Rules

NAME = "vertex_gemini"

_SYSTEM = ("system_instruction", "systemInstruction")


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return sum(_has_parts(record.get("contents")) for record in sample) / len(sample)


def _has_parts(contents: Any) -> bool:
    return isinstance(contents, list) and any(isinstance(turn, dict) and "parts" in turn for turn in contents)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment of two completions; a demonstration where there are none."""
    turns = (*_system(record), *_turns(record.get("contents"), "contents"))
    if "completions" not in record:
        return (Demonstration(check_conversation(turns)),)
    completions = record["completions"]
    if not isinstance(completions, list) or not all(isinstance(one, dict) for one in completions):
        raise Unusable(Reason.WRONG_TYPE, f"completions is {kind_of(completions)}, a list of objects was expected")
    return pairs_by_rank(
        check_prompt(turns),
        [_completion(one) for one in completions],
        [-_score(one) for one in completions],
        group="completions",
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )


def _system(record: Mapping[str, Any]) -> Turns:
    """The system instruction, whose own role (none, user or system) says nothing."""
    held = next((record[name] for name in _SYSTEM if record.get(name)), None)
    parts = held.get("parts") if isinstance(held, dict) else held
    return turns_of([{"role": "system", "content": parts}], _SYSTEM[0]) if held else ()


def _turns(contents: Any, name: str) -> Turns:
    return turns_of(contents, name, content_key="parts")


def _completion(held: Mapping[str, Any]) -> str:
    turns = _turns([held.get("completion")], "completion")
    if turns[0][0] != "assistant":
        raise Unusable(Reason.ROLE_ORDER, f"a completion is the {turns[0][0]}'s, the model's was expected")
    return turns[0][1]


def _score(held: Mapping[str, Any]) -> float:
    score = held.get("score")
    if not isinstance(score, (int, float)) or isinstance(score, bool):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"a completion's score is {shown(score)}, 0 or 1 was expected")
    return float(score)
