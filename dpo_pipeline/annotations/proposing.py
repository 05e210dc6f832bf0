"""A first draft of a drop's mapping, from the names and values of a file's columns; a person confirms it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dpo_pipeline.annotations.reading import tables_of
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.registry import recognise
from dpo_pipeline.annotations.rules import COMMON_WORDS, Rules
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sources import sources_of_file

SAMPLE_RECORDS = 1_000
MOST_WORDS = 20
"""A column with more distinct values than this is no verdict."""

_NAMES = {
    "prompt": r"prompt|question|instruction|query|conversation|context|user_?(input|message)|^input",
    "verdict": r"preferen|verdict|winner|overall|choice|better|comparison|label|selected|rating|likert|score",
    "annotator": r"worker|annotator|rater|labell?er|contributor|expert|user_?id|completed_by",
    "seconds": r"second|duration|time_?spent|lead_?time|elapsed|_secs?$|_s$",
    "judged_at": r"submit|completed_?at|created|judged|timestamp|date|_at$",
    "justification": r"justif|reason|rational|explan|comment|why|feedback|note",
    "shown_first": r"shown|first|left|position|display|order",
    "guideline_version": r"guideline|rubric_?version|instructions?_?version",
    "system": r"^system",
}
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("x", "y"))
_NUMBER = re.compile(r"-?\d{1,3}")
_TOKEN = re.compile(r"[a-z]+|\d+")
_STRENGTHS = ((3, r"much|significant|strong|far|clear"), (1, r"slight|margin|little|somewhat|bit"))
_NOT_A_SIDE = (
    ("both_bad", r"both.*(bad|poor|unus|wrong)|neither|none"),
    ("tie", r"\b(tie|same|equal|equally|similar|no preference|neutral|both)\b"),
    ("skipped", r"skip"),
    ("not_rateable", r"not ?rat|cannot|can't|invalid|n/a|unsure"),
)


def propose_mapping(path: Path, *, settings: AnnotationSettings | None = None) -> dict[str, Any]:
    """What `drop.yaml` might say about a file.

    Args:
        path: An export file.
        settings: Bounds of reading.

    Returns:
        `match` (the file's name), `format` (recognised, else None), `columns` (names), and, where no format is
        recognised, `mapping`, `vocabulary`, `scale` to copy into `drop.yaml`, and `open_questions`: one sentence for
        each thing that a person must fill in or confirm.
    """
    settings = settings or AnnotationSettings()
    sample = _sample(path, settings)
    columns = list(dict.fromkeys(name for record in sample for name in record))
    found = recognise(sample, Rules(settings=settings))
    proposal: dict[str, Any] = {
        "match": path.name,
        "format": found.NAME if found else None,
        "columns": columns,
        "open_questions": [],
    }
    if found is None:
        proposal.update(_proposed(columns, sample, proposal["open_questions"]))
    return proposal


def _sample(path: Path, settings: AnnotationSettings) -> list[Mapping[str, Any]]:
    """The first usable records of the file's first table that has any."""
    for source in sources_of_file(path, settings):
        for _, entries in tables_of(source, settings):
            values = (value for _, value, _ in islice(entries, SAMPLE_RECORDS))
            if sample := [value for value in values if not isinstance(value, Unusable)]:
                return sample
    return []


def _proposed(columns: Sequence[str], sample: Sequence[Mapping[str, Any]], questions: list[str]) -> dict[str, Any]:
    values = {name: [record[name] for record in sample if record.get(name) not in (None, "")] for name in columns}
    mapping: dict[str, Any] = {}
    pair = _responses(columns, values)
    if pair is None:
        questions.append("No two columns look like the responses: name them as response_a and response_b.")
    else:
        mapping["response_a"], mapping["response_b"] = pair
    taken = set(pair or ())
    for role, pattern in _NAMES.items():
        fitting = [name for name in columns if name not in taken and re.search(pattern, name.casefold())]
        fitting = [name for name in fitting if _fits(role, values[name])]
        if fitting:
            best = max(fitting, key=lambda name: _length(values[name])) if role == "prompt" else fitting[0]
            mapping[role] = best
            taken.add(best)
    questions += [f"No column looks like the {role}: name it." for role in ("prompt", "verdict") if role not in mapping]
    words = Counter(str(value).strip().casefold() for value in values.get(mapping.get("verdict", ""), []))
    scale = _scale(words, questions)
    vocabulary = _vocabulary(
        [word for word in sorted(words) if scale is None or not _NUMBER.fullmatch(word)], questions
    )
    mapping["dimensions"] = {
        name: name for name in columns if name not in taken and words and _is_subset(values[name], set(words))
    }
    return {"mapping": mapping, "vocabulary": vocabulary, "scale": scale}


def _responses(columns: Sequence[str], values: Mapping[str, Sequence[Any]]) -> tuple[str, str] | None:
    """The two columns of longest texts whose names differ only in their side: response_a / response_b, Answer 1 / 2."""
    tokens = {name: tuple(_TOKEN.findall(name.casefold())) for name in columns}
    pairs = [
        (one, other)
        for first, second in _SIDES
        for one in columns
        for other in columns
        if one != other
        and first in tokens[one]
        and tuple(second if token == first else token for token in tokens[one]) == tokens[other]
    ]
    longest = max(pairs, key=lambda pair: _length(values[pair[0]]) + _length(values[pair[1]]), default=None)
    return longest if longest and _length(values[longest[0]]) >= 10 else None


def _length(values: Sequence[Any]) -> float:
    texts = [value for value in values if isinstance(value, str)]
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def _fits(role: str, values: Sequence[Any]) -> bool:
    """Whether a column's values are of the kind its role has."""
    if not values:
        return False
    if role == "seconds":
        return all(re.fullmatch(r"\d+(\.\d+)?", str(value).strip()) for value in values)
    if role == "judged_at":
        rules = Rules()
        return all(rules.time(value) is not None for value in values[:50])
    if role in {"verdict", "shown_first", "guideline_version"}:
        return all(isinstance(value, (str, int, float)) for value in values) and len(set(values)) <= MOST_WORDS
    return True


def _is_subset(values: Sequence[Any], words: set[str]) -> bool:
    found = {str(value).strip().casefold() for value in values}
    return bool(found) and len(found) > 1 and found <= words


def _scale(words: Mapping[str, int], questions: list[str]) -> str | None:
    """The numeric scale that the frequent numbers among the verdicts lie on."""
    numbers = {int(word): count for word, count in words.items() if _NUMBER.fullmatch(word)}
    frequent = {number for number, count in numbers.items() if count * 100 >= sum(numbers.values())}
    if len(frequent) < 3:
        return None
    if min(frequent) < 0:
        scale, allowed = "signed_3", range(-3, 4)
    else:
        scale, allowed = ("likert_7", range(1, 8)) if max(frequent) > 5 else ("likert_5", range(1, 6))
        questions.append(f"Scale {scale} takes 1 for 'response_a much better'; set likert_reversed if it is not.")
    questions += [f"The verdict {number} is not on the scale {scale}." for number in sorted(numbers.keys() - allowed)]
    return scale if frequent <= set(allowed) else None


def _vocabulary(words: Sequence[str], questions: list[str]) -> dict[str, Any]:
    """Meaning per word that does not mean the same everywhere."""
    vocabulary = {}
    for word in words:
        meaning = _meaning(word)
        if meaning is None:
            questions.append(f"What does the verdict {word!r} mean?")
        elif COMMON_WORDS.get(word) != meaning:
            vocabulary[word] = meaning
    return vocabulary


def _meaning(word: str) -> int | str | None:
    """What a verdict in words says, by its side and its adverb."""
    if word in COMMON_WORDS:
        return COMMON_WORDS[word]
    for meaning, pattern in _NOT_A_SIDE:
        if re.search(pattern, word):
            return meaning
    tokens = _TOKEN.findall(word)
    sides = {sign for first, second in _SIDES for sign, side in ((-1, first), (1, second)) if side in tokens}
    if "a" in tokens and sides == {-1, 1}:  # "b is a bit better": the article is no side
        sides = {1}
    if len(sides) != 1:
        return None
    strength = next((value for value, pattern in _STRENGTHS if re.search(pattern, word)), 2)
    return sides.pop() * strength
