"""What holds for one file: the words of its verdicts, its scale, and how its times and ids are read."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from dpo_pipeline.annotations.decoding import decode
from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.quantities import duration_of, number_of, time_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable, kind_of, shown
from dpo_pipeline.annotations.settings import AnnotationSettings

Verdict = tuple[str, int]
"""Choice, and strength -3..3 (0 unless the choice is a or b)."""

COMMON_WORDS: Mapping[str, int | str] = {
    **dict.fromkeys(("a", "left", "response_a", "response a", "model_a", "model a", "first", "option a"), -2),
    **dict.fromkeys(("b", "right", "response_b", "response b", "model_b", "model b", "second", "option b"), 2),
    **dict.fromkeys(("tie", "same", "equal", "about the same", "no preference", "neutral", "both", "both good"), "tie"),
    **dict.fromkeys(("both_bad", "both bad", "tie (bothbad)", "neither", "both are bad"), "both_bad"),
    **dict.fromkeys(("not_rateable", "not rateable", "cannot judge", "n/a", "invalid"), "not_rateable"),
    **dict.fromkeys(("skipped", "skip"), "skipped"),
}
"""Words that mean the same wherever they stand; a drop's vocabulary goes before them."""

STRENGTH_WORDS = (
    (3, r"much|significant|strong|far\b|clear|definite|\bviel\b|deutlich|beaucoup|nettement|\bmucho\b"),
    (1, r"slight|margin|little|somewhat|\bbit\b|weak|etwas|\bleicht\b|\bun peu\b|légère|\bpoco\b|ligera"),
)
"""Adverbs by which words tell how much better; without one it is 2."""
_JOINTS = re.compile(r"[_\-]+")
_PER_SECOND = {"seconds": 1.0, "milliseconds": 1_000.0, "minutes": 1 / 60}


class Rules:
    """A file rule of `drop.yaml`, resolved with the profile's settings.

    Attributes:
        file: The rule as written.
        notes: How often a value that is not needed could not be read and was left out, by kind.
        derived: What a format works out from the rule once per file, under its own name.
    """

    def __init__(self, file: FileRule | None = None, settings: AnnotationSettings | None = None) -> None:
        self.file = file or FileRule()
        self.settings = settings or AnnotationSettings()
        self.notes: Counter[str] = Counter()
        reversed_likert = self.file.likert_reversed
        self._sign = -1 if (self.settings.likert_reversed if reversed_likert is None else reversed_likert) else 1
        self._known: dict[Any, Verdict] = {}
        self.derived: dict[str, Any] = {}

    def verdict(self, value: Any) -> Verdict:
        """What a verdict in the export's own word or number means.

        Raises:
            Unusable: If nothing says what it means.
        """
        if isinstance(value, (list, dict)):
            raise Unusable(Reason.WRONG_TYPE, f"the verdict is {kind_of(value)}")
        key = value if type(value) is str else (type(value), value)  # True equals 1, but means something else
        found = self._known.get(key)
        if found is None:
            found = self._verdict(value)
            if len(self._known) < 10_000:
                self._known[key] = found
        return found

    def _verdict(self, value: Any) -> Verdict:
        if value is None or value == "":
            raise Unusable(Reason.MISSING_FIELD, "the verdict is empty")
        word = _word(value)
        meaning = self.file.vocabulary.get(word)
        if meaning is None and self.file.scale is not None:
            meaning = self._on_scale(word)
        if meaning is None:
            meaning = COMMON_WORDS.get(word, COMMON_WORDS.get(_JOINTS.sub(" ", word)))
        if meaning is None:
            raise Unusable(
                Reason.UNKNOWN_VERDICT, f"the verdict is {shown(value)}; say in drop.yaml's vocabulary what it means"
            )
        return (meaning, 0) if isinstance(meaning, str) else signed(meaning)

    def _on_scale(self, word: str) -> int | None:
        try:
            number = int(word)
        except ValueError:
            return None
        if self.file.scale == "signed_3":
            return number if -3 <= number <= 3 else None
        most = 7 if self.file.scale == "likert_7" else 5
        return self._sign * (number - (most + 1) // 2) if 1 <= number <= most else None

    def dimension(self, value: Any) -> float | None:
        """A verdict on one rubric dimension as a strength; None where it was not given or not understood (noted)."""
        if value is None or value == "":
            return None
        try:
            return float(self.verdict(value)[1])
        except Unusable:
            self.notes["unreadable_dimension"] += 1
            return None

    def dimensions(
        self, named: Mapping[str, str | list[str]], get: Callable[[str], Any]
    ) -> tuple[tuple[str, float], ...]:
        """The strength per rubric dimension, those left out of which nothing was given or understood.

        Args:
            named: A dimension's column, or the two that rate response a and response b.
            get: Reads a column.
        """
        found = (
            (name, self.dimension(get(where)) if isinstance(where, str) else self._difference(*map(get, where)))
            for name, where in named.items()
        )
        return tuple((name, value) for name, value in found if value is not None)

    def _difference(self, a: Any, b: Any) -> float | None:
        if a in (None, "") or b in (None, ""):
            return None
        try:
            difference = (number_of(b) - number_of(a)) / self.file.rating_step
        except (TypeError, ValueError):
            difference = math.nan
        if math.isnan(difference):
            self.notes["unreadable_dimension"] += 1
            return None
        return max(-3.0, min(3.0, difference))

    def strengthened(self, verdict: Verdict, degree: Any) -> Verdict:
        """The verdict with the strength of a column of its own; as it is where none is understood there (noted)."""
        choice, strength = verdict
        if strength == 0 or degree in (None, ""):
            return verdict
        word = _word(degree)
        if word in {"1", "2", "3"}:
            size = int(word)
        else:
            found = next((size for size, pattern in STRENGTH_WORDS if re.search(pattern, word)), None)
            size = 2 if found is None and re.search(r"moderat|medium|better|normal", word) else found
        if size is None:
            self.notes["unreadable_strength"] += 1
            return verdict
        return choice, size if strength > 0 else -size

    def annotator(self, value: Any) -> str | None:
        """The platform's id of who judged, as text with the drop's namespace; None where there is none."""
        if type(value) is str:
            name = value.strip()
            return self.file.annotator_namespace + name if name else None
        if isinstance(value, dict):
            value = value.get("id", value.get("email"))
        if value is None or isinstance(value, (list, dict)):
            return None
        return self.annotator(_word(value))

    @staticmethod
    def number(value: Any, *, otherwise: float) -> float:
        """A number, also as text; `otherwise` where there is none."""
        try:
            number = math.nan if isinstance(value, bool) else number_of(value)
        except (TypeError, ValueError):
            number = math.nan
        return number if math.isfinite(number) else otherwise

    def seconds(self, value: Any) -> float | None:
        """A duration in seconds; None where it was not given or is no plausible number (noted)."""
        return self._duration(value, 1.0)

    def mapped_seconds(self, value: Any) -> float | None:
        """The same of a column that the drop's mapping names, which counts in the drop's `time_unit`."""
        return self._duration(value, _PER_SECOND[self.file.time_unit])

    def _duration(self, value: Any, per_second: float) -> float | None:
        if value is None or value == "":
            return None
        try:
            number = duration_of(value, per_second)
        except (TypeError, ValueError):
            number = math.nan
        if 0 <= number < 1e9:
            return number
        self.notes["unreadable_seconds"] += 1
        return None

    def time(self, value: Any) -> datetime | None:
        """A time in UTC; None where it was not given or cannot be read (noted)."""
        if value is None or value == "":
            return None
        try:
            found = time_of(value, day_first=self.file.day_first)
        except (ValueError, OverflowError, OSError):
            found = None
        if found is None:
            self.notes["unreadable_time"] += 1
        return found

    def shown_first(self, value: Any, *, a: str | None, b: str | None) -> str | None:
        """Which response stood first: a or b; None where unknown. `a` and `b` are the responses' own names."""
        if value is None or value == "":
            return None
        word = _word(value)
        if word in {"a", "left", "response_a", "1"} or (a and word == a.casefold()):
            return "a"
        if word in {"b", "right", "response_b", "2"} or (b and word == b.casefold()):
            return "b"
        self.notes["unreadable_side"] += 1
        return None

    def sft_allowed(self, *, default: bool = True) -> bool:
        """Whether the source permits SFT: the drop's word, else the format's."""
        return default if self.file.sft_allowed is None else self.file.sft_allowed


def signed(strength: int) -> Verdict:
    """The verdict a signed strength stands for.

    >>> signed(-2), signed(0)
    (('a', -2), ('tie', 0))
    """
    return ("a" if strength < 0 else "b" if strength > 0 else "tie", strength)


def field(record: Mapping[str, Any], path: str) -> Any:
    """A field by its name, or by names with dots between where there is no field of the whole name.

    A text that is a JSON object, as in a cell of a sheet, is gone into; one that is broken holds no fields.

    >>> field({"data": {"text": "x"}}, "data.text"), field({"task": '{"a": ["y"]}'}, "task.a.0")
    ('x', 'y')
    """
    if path in record or "." not in path:
        return record.get(path)
    value: Any = record
    for name in path.split("."):
        if type(value) is str:
            value = object_in(value)
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            return None
    return value


@lru_cache(maxsize=16)  # a mapping asks the same cell for one field after the other
def object_in(text: str) -> dict[str, Any] | None:
    """The JSON object a text is, as strictly read as a record; None where it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = decode(text.encode())
    except UnicodeEncodeError:
        return None
    return value if isinstance(value, dict) else None


def _word(value: Any) -> str:
    """A word or number as the text that vocabularies are keyed by: `3` and `3.0` are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()
