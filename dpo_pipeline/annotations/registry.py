"""The export formats that are known, and which of them a file is in.

To add one: write its module under `formats/`, list it here, put a golden file under `tests/annotations/goldens/`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dpo_pipeline.annotations.formats import (
    alpaca,
    alpaca_eval,
    appen,
    arena,
    argilla,
    aws_nova,
    axolotl,
    columns,
    helpsteer,
    helpsteer_ratings,
    hh_rlhf,
    label_studio,
    label_studio_flat,
    label_studio_ranking,
    llama_factory,
    messages,
    messages_rejected,
    multipref,
    oasst,
    openai,
    prism,
    prodigy,
    prompt_completion,
    safe_rlhf,
    sharegpt,
    shp,
    stack_exchange,
    summarize,
    surge,
    trl,
    ultra_interact,
    ultrafeedback,
    vertex,
    webgpt,
)
from dpo_pipeline.annotations.records import Part
from dpo_pipeline.annotations.rules import Rules


class ExportFormat(Protocol):
    """What a format's module offers.

    Where several rows are one record, also `joined_by(rules)`: what tells of a row which record it belongs to. Where
    records need a mapping, also `mapped_rows(record)`: what the mapping is given of one. Where annotators are not
    people, also `ANNOTATORS_ARE`, which says so.
    """

    NAME: str

    def recognise(self, sample: Sequence[Mapping[str, Any]]) -> float:
        """How sure it is that these records are of this format, 0..1."""
        ...

    def parse(self, record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
        """The judgments or the demonstration of one record, and its unusable parts; raises Unusable for the whole."""
        ...


FORMATS: dict[str, ExportFormat] = {
    module.NAME: module  # type: ignore[misc] # a module is the protocol's simplest implementation
    for module in (
        hh_rlhf,
        openai,
        vertex,
        aws_nova,
        ultrafeedback,
        helpsteer,
        helpsteer_ratings,
        multipref,
        prism,
        arena,
        oasst,
        safe_rlhf,
        shp,
        webgpt,
        summarize,
        stack_exchange,
        alpaca_eval,
        ultra_interact,
        label_studio_ranking,
        label_studio_flat,
        label_studio,
        appen,
        surge,
        argilla,
        prodigy,
        llama_factory,
        axolotl,
        trl,
        messages_rejected,
        messages,
        prompt_completion,
        alpaca,
        sharegpt,
        columns,
    )
}
LEAST_CONFIDENCE = 0.4
_SHEETS = (appen, label_studio_flat)
"""Exports as sheets that need more than a mapping of columns."""


def recognise(sample: Sequence[Mapping[str, Any]], rules: Rules) -> ExportFormat | None:
    """The format of a file by its first records: what `drop.yaml` states, a mapping that fits, else the surest guess.

    None where nothing is sure enough. Ties go to the format listed first.
    """
    if rules.file.format is not None:
        return FORMATS[rules.file.format]
    if rules.file.mapping is not None and sample and columns.fits(sample, rules.file.mapping):
        # An Appen report is a spreadsheet too, but one in which some rows are no votes; of Label Studio's the verdict
        # is a list of results.
        return next((FORMATS[one.NAME] for one in _SHEETS if one.recognise(sample) > 0.5), FORMATS[columns.NAME])
    if not sample:
        return None
    confidences = {name: module.recognise(sample) for name, module in FORMATS.items()}
    best = max(confidences, key=lambda name: confidences[name])
    return FORMATS[best] if confidences[best] >= LEAST_CONFIDENCE else None
