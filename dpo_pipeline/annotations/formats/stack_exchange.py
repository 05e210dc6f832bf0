"""Stack Exchange answers as preferences: the paired release (`response_j` over `response_k`) and H4's scored answers.

https://huggingface.co/datasets/lvwerra/stack-exchange-paired,
https://huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences. `pm_score` (log2 of the votes, one more where
the asker accepted the answer, -1 for negative votes) rates the answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.kway import pairs_by_rating
from dpo_pipeline.annotations.formats.shared import preferred, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, kind_of, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "stack_exchange"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    scored = sum(_has_scores(record.get("answers")) and "question" in record for record in sample) / len(sample)
    return max(scored, share_with(sample, "question", "response_j", "response_k"))


def _has_scores(answers: Any) -> bool:
    return isinstance(answers, list) and any(isinstance(one, dict) and "pm_score" in one for one in answers)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment of a pair; of K answers one per two."""
    prompt = single_prompt(text_of(record, "question"))
    if "answers" not in record:
        return (preferred(prompt, text_of(record, "response_j"), text_of(record, "response_k"), rules),)
    answers = record["answers"]
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise Unusable(Reason.WRONG_TYPE, f"answers is {kind_of(answers)}, a list of objects was expected")
    return pairs_by_rating(
        prompt,
        [text_of(one, "text") for one in answers],
        [_score(one) for one in answers],
        group="answers",
        step=rules.file.rating_step,
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )


def _score(answer: Mapping[str, Any]) -> float:
    score = answer.get("pm_score")
    if not isinstance(score, (int, float)) or isinstance(score, bool):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"a pm_score is {shown(score)}, a number was expected")
    return float(score)
