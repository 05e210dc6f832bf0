"""Double-entry books for records: in = kept + merged + rejected by reason, or the build stops."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dpo_pipeline.core.errors import InputError


@dataclass(slots=True)
class Books:
    """What became of every record that came in.

    Attributes:
        records_in: Records met.
        kept: Records kept, by what they became ("judgments", "demonstrations", "pairs").
        merged: Records folded into a kept one (duplicates whose content lives on in the keeper).
        rejected: Records left out, by reason code.
    """

    records_in: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    merged: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def kept_count(self) -> int:
        """Records kept, whatever they became."""
        return sum(self.kept.values())

    @property
    def rejected_count(self) -> int:
        """Records left out, whatever the reason."""
        return sum(self.rejected.values())

    @property
    def is_balanced(self) -> bool:
        """Whether every record that came in is accounted for exactly once."""
        return self.records_in == self.kept_count + self.merged + self.rejected_count

    def assert_balanced(self, *, of: str) -> None:
        """Raise unless in = kept + merged + rejected.

        >>> Books(records_in=3, kept=Counter(pairs=2), rejected=Counter(tie=1)).assert_balanced(of="drop may")
        >>> Books(records_in=3, kept=Counter(pairs=2)).assert_balanced(of="drop may")
        Traceback (most recent call last):
            ...
        dpo_pipeline.core.errors.InputError: the books of drop may do not balance: \
3 in, 2 kept, 0 merged, 0 rejected. Expected: in = kept + merged + rejected. \
This is a defect in dpo-pipeline; please report it with the drop's manifest.
        """
        if not self.is_balanced:
            raise InputError(
                f"the books of {of} do not balance: {self.records_in} in, {self.kept_count} kept, "
                f"{self.merged} merged, {self.rejected_count} rejected",
                expected="in = kept + merged + rejected",
                do="This is a defect in dpo-pipeline; please report it with the drop's manifest",
            )

    def as_dict(self) -> dict[str, object]:
        """Plain values for a manifest, reasons sorted by name."""
        return {
            "in": self.records_in,
            "kept": dict(sorted(self.kept.items())),
            "merged": self.merged,
            "rejected": dict(sorted(self.rejected.items())),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Books":
        """The inverse of `as_dict`.

        Raises:
            ValueError: If the values are of another shape.
        """
        kept, rejected = values.get("kept"), values.get("rejected")
        numbers = [values.get("in"), values.get("merged")]
        for part in (kept, rejected):
            numbers += part.values() if isinstance(part, Mapping) else [None]
        if not all(type(number) is int for number in numbers):
            raise ValueError(f"{dict(values)} are no books: in, kept, merged and rejected with whole numbers")
        assert isinstance(kept, Mapping)
        assert isinstance(rejected, Mapping)
        return cls(int(str(values["in"])), Counter(dict(kept)), int(str(values["merged"])), Counter(dict(rejected)))


def total(books: Iterable[Books]) -> Books:
    """The sum of several books, entry by entry."""
    result = Books()
    for book in books:
        result.records_in += book.records_in
        result.kept.update(book.kept)
        result.merged += book.merged
        result.rejected.update(book.rejected)
    return result
