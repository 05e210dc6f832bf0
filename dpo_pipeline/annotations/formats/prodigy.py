"""Prodigy's `choice` recipe: a prompt, options, and the ids of those accepted.

https://prodi.gy/docs/api-interfaces#choice. An accepted option beats every one that was not; `ignore` is a skip,
`reject` says that the task cannot be judged.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from dpo_pipeline.annotations.formats.kway import MAX_RESPONSES
from dpo_pipeline.annotations.formats.shared import prompt_of, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable, kind_of, response_of, shown, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "prodigy"

_ANSWERS = {"accept": None, "ignore": "skipped", "reject": "not_rateable"}


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return 0.95 * share_with(sample, "options", "answer")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """A judgment per accepted and not accepted option."""
    answer = record.get("answer")
    if not isinstance(answer, str) or answer not in _ANSWERS:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the answer is {shown(answer)}")
    prompt = prompt_of(record.get("text", record.get("prompt")), "text")
    texts, accepted = _options(record)
    fields = {
        "annotator": rules.annotator(record.get("_annotator_id", record.get("_session_id"))),
        "judged_at": rules.time(record.get("_timestamp")),
        "guideline_version": rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    if len(texts) > 2:
        fields["group_id"] = "options"
    whole = _ANSWERS[answer]
    if whole is not None:
        return [Judgment(prompt, a, b, whole, **fields) for a, b in combinations(texts, 2)]
    parts = [
        Judgment(prompt, texts[a], texts[b], *(("a", -2) if a in accepted else ("b", 2)), **fields)
        for a, b in combinations(range(len(texts)), 2)
        if (a in accepted) != (b in accepted)
    ]
    if not parts:
        raise Unusable(Reason.NO_VERDICT, f"{len(accepted)} of {len(texts)} options are accepted")
    return parts


def _options(record: Mapping[str, Any]) -> tuple[list[str], set[int]]:
    """The options' texts, and the places of those accepted."""
    options, accept = record.get("options"), record.get("accept", [])
    if not isinstance(options, list) or not all(isinstance(option, dict) for option in options):
        raise Unusable(Reason.WRONG_TYPE, f"options is {kind_of(options)}, a list of objects was expected")
    if not isinstance(accept, list):
        raise Unusable(Reason.WRONG_TYPE, f"accept is {kind_of(accept)}, a list was expected")
    if not 2 <= len(options) <= MAX_RESPONSES:
        reason = Reason.TOO_FEW_RESPONSES if len(options) < 2 else Reason.TOO_MANY_RESPONSES
        raise Unusable(reason, f"{len(options)} options")
    ids = [str(option.get("id")) for option in options]
    unknown = [one for one in accept if str(one) not in ids]
    if unknown:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"accepted is {shown(unknown[0])}, which is no option")
    texts = [response_of(text_of(option, "text"), f"option {place}") for place, option in enumerate(options, 1)]
    return texts, {ids.index(str(one)) for one in accept}
