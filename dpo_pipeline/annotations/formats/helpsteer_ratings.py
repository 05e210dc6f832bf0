"""NVIDIA HelpSteer and HelpSteer2: one response a row, rated 0-4 on five attributes.

https://huggingface.co/datasets/nvidia/HelpSteer2 (a row and the next one are the two responses to one prompt),
https://huggingface.co/datasets/nvidia/HelpSteer (up to four). The rows of one prompt follow one another
and are one record, numbered as their first. Helpfulness decides, as in NVIDIA's own use for preferences; equal
helpfulness is a tie, and the other attributes are rubric dimensions. In `disagreements` an attribute is a list of the
annotators' ratings, of which the mean counts.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from dpo_pipeline.annotations.formats.helpsteer import prompt_before
from dpo_pipeline.annotations.formats.kway import pairs_by_rating, with_differences
from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, shown, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "helpsteer_ratings"

ATTRIBUTES = ("correctness", "coherence", "complexity", "verbosity")


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "prompt", "response", "helpfulness")


def joined_by(rules: Rules) -> Callable[[Mapping[str, Any]], Any]:  # noqa: ARG001
    """What the rows of one record have in common: their prompt."""
    return lambda row: row.get("prompt")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """The pairs of the rows about one prompt.

    Args:
        record: `rows`: one after the other. A row alone may also be given as it is.
        rules: The file's.
    """
    rows = record.get("rows", [record])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Unusable(Reason.WRONG_TYPE, "the rows are no list of objects")
    if len(rows) < 2:
        raise Unusable(Reason.TOO_FEW_RESPONSES, "no row beside it rates another response to the same prompt")
    responses = [text_of(row, "response") for row in rows]
    ratings = [_rating(row, "helpfulness") for row in rows]
    parts = pairs_by_rating(
        prompt_before(rows[0]),
        responses,
        ratings,
        group="ratings",
        step=rules.file.rating_step,
        guideline_version=rules.file.guideline_version,
        sft_allowed=rules.sft_allowed(),
    )
    aspects = [{name: _rating(row, name) for name in ATTRIBUTES if row.get(name) is not None} for row in rows]
    return with_differences(parts, responses, aspects)


def _rating(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    values: list[Any] = value if isinstance(value, list) and value else [value]
    try:
        numbers = [float(one) for one in values if not isinstance(one, bool)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(values) or not all(0 <= number <= 4 for number in numbers):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"{name} is {shown(value)}, ratings from 0 to 4 were expected")
    return fmean(numbers)
