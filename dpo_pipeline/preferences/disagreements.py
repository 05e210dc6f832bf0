"""The pairs most disputed among annotators, with the beginnings of their texts."""

from typing import Any

import numpy as np
import pyarrow as pa

from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.personal_data import PERSONAL_DATA, redact
from dpo_pipeline.preferences.texts import read_texts
from dpo_pipeline.preferences.verdicts import HIGH, LOW, Verdicts

EXAMPLES = 12
EXCERPT_CHARACTERS = 400
DISPUTED = np.dtype([("pair", "<i8"), ("low", "<i8"), ("high", "<i8")])


class Disagreements:
    """The pairs with the most judgments on both sides, found a range of pairs at a time."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, DISPUTED)

    def add(self, start: int, verdicts: Verdicts) -> None:
        """Look at the judgments on some pairs, the first of which has a number among all."""
        counted, rows = verdicts.is_counted, np.zeros(verdicts.pair_count, DISPUTED)
        rows["pair"] = start + np.arange(len(rows))
        for name, side in (("low", LOW), ("high", HIGH)):
            rows[name] = np.bincount(verdicts.pair[counted & (verdicts.side == side)], minlength=len(rows))
        rows = np.concatenate([self._rows, rows[np.minimum(rows["low"], rows["high"]) > 0]])
        weaker, all_ = np.minimum(rows["low"], rows["high"]), rows["low"] + rows["high"]
        self._rows = rows[np.lexsort((rows["pair"], -all_, -weaker))[:EXAMPLES]]

    def examples(self, catalogue: Catalogue) -> list[dict[str, Any]]:
        """The pairs with their texts, the most disputed first."""
        pairs, index = self._rows["pair"], catalogue.pairs
        rows, b_is_low = index.column_at("row", pairs), index.column_at("b_is_low", pairs)
        examples: list[dict[str, Any]] = [{} for _ in pairs]
        for number, drop in enumerate(catalogue.drops):
            here = np.flatnonzero(index.place.drop[pairs] == number)
            for texts in read_texts(drop.judgments, rows[here]):
                for place, prompt, a, b in zip(
                    here[texts.place],
                    texts.prompt.to_pylist(),
                    texts.response_a.to_pylist(),
                    texts.response_b.to_pylist(),
                    strict=True,
                ):
                    first, second = (b, a) if b_is_low[place] else (a, b)
                    examples[place] = {
                        "pair_id": to_hex(index.ids[pairs[place : place + 1]])[0].as_py(),
                        "prompt": _excerpt(prompt[-1]["content"] if prompt else ""),
                        "one": _excerpt(first),
                        "other": _excerpt(second),
                        "for_one": int(self._rows["low"][place]),
                        "for_other": int(self._rows["high"][place]),
                    }
        return examples


def _excerpt(text: str) -> str:
    """The beginning of a text; what looks like personal data is replaced first, so that no cut leaves half of it."""
    text = redact(pa.array([text.strip()]), rules=frozenset(PERSONAL_DATA))[0].as_py()
    return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS].rstrip() + " …"
