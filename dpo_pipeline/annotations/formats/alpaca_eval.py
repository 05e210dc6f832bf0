"""Two outputs to one instruction, 1 or 2 for the better: AlpacaFarm, AlpacaEval annotations, LLMBar, OffsetBias.

https://huggingface.co/datasets/tatsu-lab/alpaca_farm, https://github.com/tatsu-lab/alpaca_eval,
https://github.com/princeton-nlp/LLMBar, https://huggingface.co/datasets/NCSOFT/offsetbias. AlpacaEval writes a tie as
0 or 1.5, and a judge's probability as a number between 1 and 2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.alpaca import alpaca_prompt
from dpo_pipeline.annotations.formats.shared import judged, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Turns, Unusable, shown, single_prompt, text_of
from dpo_pipeline.annotations.rules import Rules, Verdict

NAME = "alpaca_eval"

_ANNOTATORS = ("annotator_index", "annotator")
_VERDICTS = ("preference", "label")


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return max(share_with(sample, "output_1", "output_2", verdict) for verdict in _VERDICTS)


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    verdict = _verdict(next((record[name] for name in _VERDICTS if record.get(name) is not None), None))
    who = rules.annotator(next((record[name] for name in _ANNOTATORS if record.get(name) is not None), None))
    return (judged(_prompt(record), record, ("output_1", "output_2"), verdict, rules, annotator=who),)


def _prompt(record: Mapping[str, Any]) -> Turns:
    """Instruction and input; LLMBar has the input alone."""
    return alpaca_prompt(record) if "instruction" in record else single_prompt(text_of(record, "input"))


def _verdict(value: Any) -> Verdict:
    if value is None:
        raise Unusable(Reason.NO_VERDICT, "there is no preference")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number in (0.0, 1.5):
        return "tie", 0
    if not 1 <= number <= 2:
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the preference is {shown(value)}, a number from 1 to 2 was expected")
    return ("a", -2) if number < 1.5 else ("b", 2)
