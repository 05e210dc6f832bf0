"""What a reconcile did and what it found: deeds mend what a crash left, faults are for a person to look at."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Findings:
    """Sentences of one reconcile, in order.

    Attributes:
        deeds: What was done: an attempt closed, MLflow told, an artifact signed.
        faults: What does not agree and was left as it is.
    """

    deeds: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, *, deeds: Iterable[str] = (), faults: Iterable[str] = ()) -> None:
        """Take more sentences in."""
        self.deeds += deeds
        self.faults += faults

    def take(self, other: "Findings") -> None:
        """Take another's in."""
        self.add(deeds=other.deeds, faults=other.faults)

    @property
    def sentences(self) -> list[str]:
        """All of it, deeds first."""
        return [*self.deeds, *self.faults]
