"""UltraFeedback: K completions per instruction, each rated 1-5 on four aspects by a model.

https://huggingface.co/datasets/openbmb/UltraFeedback. `overall_score` is not used: a critique score of 1 was stored as
10 (https://huggingface.co/datasets/argilla/ultrafeedback-binarized-preferences). The mean of the aspects ranks.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from dpo_pipeline.annotations.formats.kway import pairs_by_rating, with_differences
from dpo_pipeline.annotations.formats.shared import share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, kind_of, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "ultrafeedback"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "instruction", "completions")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """A judgment per two completions; a completion without any numeric rating is a part of its own."""
    completions = record.get("completions")
    if not isinstance(completions, list):
        reason = Reason.MISSING_FIELD if completions is None else Reason.WRONG_TYPE
        raise Unusable(reason, f"completions is {kind_of(completions)}, a list was expected")
    prompt = single_prompt(text_of(record, "instruction"))
    responses, aspects, unrated = [], [], []
    for place, completion in enumerate(completions, start=1):
        if not isinstance(completion, dict):
            raise Unusable(Reason.WRONG_TYPE, f"completion {place} is {kind_of(completion)}")
        ratings = _ratings(completion)
        if ratings:
            responses.append(text_of(completion, "response"))
            aspects.append(ratings)
        else:
            unrated.append(Unusable(Reason.NO_VERDICT, f"completion {place} has no numeric rating"))
    means = [fmean(ratings.values()) for ratings in aspects]
    fields = {"guideline_version": rules.file.guideline_version, "sft_allowed": rules.sft_allowed()}
    parts = pairs_by_rating(prompt, responses, means, group="ratings", step=rules.file.rating_step, **fields)
    ordered = [dict(sorted(ratings.items())) for ratings in aspects]
    return [*with_differences(parts, responses, ordered), *unrated]


def _ratings(completion: Mapping[str, Any]) -> dict[str, float]:
    """The numeric ratings by aspect; "N/A" is none.

    Raises:
        Unusable: If a rating is neither a number nor "N/A".
    """
    annotations = completion.get("annotations")
    found = {}
    for aspect, annotation in annotations.items() if isinstance(annotations, dict) else ():
        rating = annotation.get("Rating") if isinstance(annotation, dict) else None
        if rating in (None, "N/A", ""):
            continue
        try:
            value = float(rating)
        except (TypeError, ValueError):
            value = 0.0
        if not 1 <= value <= 5:
            raise Unusable(Reason.UNKNOWN_VERDICT, f"the rating of {shown(aspect)} is {shown(rating)}")
        found[aspect] = value
    return found
