"""PKU-SafeRLHF and BeaverTails-style pairs: two responses, which is more helpful, and which is safer.

https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF. The two verdicts often disagree; helpfulness
(`better_response_id`) is the verdict, and both are rubric dimensions, `helpful` and `safe`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import judged, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules, Verdict

NAME = "pku_safe_rlhf"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "response_0", "response_1", "better_response_id")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    verdict = _better(record, "better_response_id")
    dimensions = [("helpful", float(verdict[1]))]
    if record.get("safer_response_id") is not None:
        dimensions.append(("safe", float(_better(record, "safer_response_id")[1])))
    prompt = single_prompt(text_of(record, "prompt"))
    return (judged(prompt, record, ("response_0", "response_1"), verdict, rules, dimensions=tuple(dimensions)),)


def _better(record: Mapping[str, Any], name: str) -> Verdict:
    found = {"0": ("a", -2), "1": ("b", 2)}.get(str(record.get(name)))
    if found is None:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"{name} is {shown(record.get(name))}, 0 or 1 was expected")
    return found
