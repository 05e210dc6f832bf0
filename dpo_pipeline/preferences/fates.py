"""What becomes of each pair: kept, or left out for exactly one reason, with the pair that stands in its stead."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import copy
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpo_pipeline.preferences.reasons import Reason
from dpo_pipeline.preferences.spill import Scratch

ALIVE = -1


class Fates:
    """One reason per pair at most: the first that applies.

    Attributes:
        reason: Place in `names` of why the pair is left out, `ALIVE` for the kept, `(P,)` int16.
        winner: Number of the pair kept in its stead, -1 for none, `(P,)` int32.
        value: The number that decided (probability, similarity, count), NaN for none, `(P,)` float32.
        is_moved: Whether the pair's judgments now count for the winner, `(P,)` bool.
    """

    def __init__(self, count: int, scratch: Scratch) -> None:
        self.names: list[str] = []
        self.reason = scratch.full(count, ALIVE, np.int16)
        self.winner = scratch.full(count, -1, np.int32)
        self.value = scratch.full(count, np.nan, np.float32)
        self.is_moved = scratch.empty(count, bool)

    def of(self, start: int, end: int) -> "Fates":
        """Those of the pairs from `start` to before `end`, numbered from 0; what changes there changes here."""
        some = copy.copy(self)
        for name in ("reason", "winner", "value", "is_moved"):
            setattr(some, name, getattr(self, name)[start:end])
        return some

    @property
    def is_alive(self) -> np.ndarray:
        """Which pairs are kept so far, `(P,)` bool."""
        return self.reason == ALIVE

    def exclude(self, hits: np.ndarray, reason: str, *, value: np.ndarray | None = None) -> np.ndarray:
        """Leave out the pairs among `hits` that are still kept, and return which these are, `(P,)` bool."""
        newly = hits & self.is_alive
        self.reason[newly] = self._code(reason)
        if value is not None:
            self.value[newly] = value[newly]
        return newly

    def exclude_for(
        self, losers: np.ndarray, winners: np.ndarray, reason: str, *, value: np.ndarray | None = None
    ) -> None:
        """Leave out pairs that are still kept, each in favour of another."""
        self.reason[losers], self.winner[losers] = self._code(reason), winners
        if value is not None:
            self.value[losers] = value

    def _code(self, reason: str) -> int:
        if reason not in self.names:
            self.names.append(str(reason))
        return self.names.index(reason)

    def name_of(self, pairs: np.ndarray) -> pa.Array:
        """The reasons of some left-out pairs, as text."""
        return pa.array(self.names, pa.string()).take(pa.array(self.reason[pairs]))

    def counts(self) -> Counter[str]:
        """Left-out pairs by reason."""
        return Counter(
            {name: hits for code, name in enumerate(self.names) if (hits := int((self.reason == code).sum()))}
        )

    def details(self, pairs: np.ndarray, judgment_counts: np.ndarray) -> pa.Array:
        """One sentence per left-out pair: what was found."""
        sentences = pa.array([_sentence(name) for name in self.names], pa.string()).take(pa.array(self.reason[pairs]))
        number = pc.if_else(
            pa.array(np.isnan(self.value[pairs])),
            "",
            pc.binary_join_element_wise(" (", pa.array(np.round(self.value[pairs], 3)).cast(pa.string()), ")", ""),
        )
        count = pa.array(judgment_counts).cast(pa.string())
        tail = pc.if_else(
            pa.array(self.is_moved[pairs]),
            " Its judgments count for that pair.",
            pc.binary_join_element_wise(" Judgments: ", count, ".", ""),
        )
        return pc.binary_join_element_wise(sentences, number, ".", tail, "")


def _sentence(name: str) -> str:
    if name in {reason.value for reason in Reason}:
        return Reason(name).sentence.rstrip(".")
    from dpo_pipeline.preferences.settings import RuleActions

    return str(RuleActions.model_fields[name].description).rstrip(".")
