"""Stanford Human Preferences (SHP, SHP-2): two comments on one post, and which of them readers voted up.

https://huggingface.co/datasets/stanfordnlp/SHP. `labels` is 1 where A is preferred. The card advises to use pairs whose
`score_ratio` is at least 2: those have strength 2, the others 1. Nobody judged one pair, so there is no annotator.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import judged, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "shp"

ADVISED_RATIO = 2.0


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "history", "human_ref_A", "human_ref_B", "labels")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    label, ratio = record.get("labels"), record.get("score_ratio")
    if str(label) not in {"0", "1"}:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"labels is {shown(label)}, 1 (A) or 0 (B) was expected")
    strength = 2 if rules.number(ratio, otherwise=0.0) >= ADVISED_RATIO else 1
    verdict = ("a", -strength) if str(label) == "1" else ("b", strength)
    prompt = single_prompt(text_of(record, "history"))
    return (judged(prompt, record, ("human_ref_A", "human_ref_B"), verdict, rules),)
