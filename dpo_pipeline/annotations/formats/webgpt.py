"""OpenAI's WebGPT comparisons: two answers to a question, each with a score from -1 to 1, together 0.

https://huggingface.co/datasets/openai/webgpt_comparisons. The answer with the positive score is the better one, 0 is a
tie; the strength is three times the score, rounded up. What the answers quote is not part of the prompt.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.kway import whole
from dpo_pipeline.annotations.formats.shared import judged, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, kind_of, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules, signed

NAME = "webgpt_comparisons"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "question", "answer_0", "answer_1", "score_0", "score_1")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    question = record.get("question")
    if not isinstance(question, dict):
        raise Unusable(Reason.WRONG_TYPE, f"question is {kind_of(question)}, an object with full_text was expected")
    first, second = (_score(record, name) for name in ("score_0", "score_1"))
    if not math.isclose(first, -second, abs_tol=1e-6):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"score_0 is {first:g} and score_1 {second:g}: their sum must be 0")
    verdict = signed(whole(3 * second))
    prompt = single_prompt(text_of(question, "full_text"))
    return (judged(prompt, record, ("answer_0", "answer_1"), verdict, rules),)


def _score(record: Mapping[str, Any], name: str) -> float:
    score = record.get(name)
    if not isinstance(score, (int, float)) or isinstance(score, bool) or not -1 <= score <= 1:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"{name} is {shown(score)}, a number from -1 to 1 was expected")
    return float(score)
