"""What a release's tables hold, in numbers for its cards."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Contents:
    """What the tables hold, counted while they are written.

    Attributes:
        splits: Pairs per split.
        sources: Pairs per export format they came from; a pair may come from several.
        drops: Pairs per delivery, likewise.
        judgments: Verdicts behind the pairs.
        agreement: Sum over the pairs of the share of votes for the chosen response.
    """

    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    judgments: int = 0
    agreement: float = 0.0
