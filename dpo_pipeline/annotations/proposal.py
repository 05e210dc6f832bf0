"""What a file's columns may be: each role, from prompt to justification, goes to the column that looks like it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.column_families import Family, are_numbers, families_of, mean_length, tokens_of
from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.headers import is_blank
from dpo_pipeline.annotations.orders import names_of, ranks_of
from dpo_pipeline.annotations.quantities import duration_of
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.rules import Rules
from dpo_pipeline.annotations.verdict_words import is_strength, meaning_of, propose_scale, propose_vocabulary

MOST_WORDS = 20
"""A column with more distinct values than this is no verdict."""
LEAST_RESPONSE_CHARACTERS = 10

_NAMES = {
    "prompt": r"prompt|question|instruction|query|conversation|context|user_?(inp|messag|request)|^input|dialog|histor"
    r"|^frage|pregunta",
    "annotator": r"worker|annotator|rater|labell?er|contributor|expert|user_?id|completed_?by|attempted_?by|reviewer"
    r"|bearbeiter",
    "strength": r"strength|degree|confidence|how_?much|magnitude|margin",
    "verdict": r"preferen|verdict|winner|overall|choice|better|comparison|label|select|rating|likert|score|chosen|pick"
    r"|bewertung",
    "seconds": r"second|duration|time_?(spent|taken)|lead_?time|elapsed|_secs?$|_m?s$|^time_?\(?(min|sec|s|ms|m)\b"
    r"|dauer|^aht|handling_?time",
    "judged_at": r"submi|completed_?at|completion_?(time|date)|created|judged|timestamp|date|_at$|^completed$|datum",
    "justification": r"justif|reason|rational|explan|comment|why|feedback|note",
    "shown_first": r"shown|first|left|position|display|order",
    "guideline_version": r"guideline|rubric_?version|instructions?_?version",
    "system": r"^system",
}
_RANKS = r"rank|order|place|position"
_ORDER = r"rank|order|sort|best|preferen"
_RESPONSE, _RANK, _RATING = (
    r"respon|answer|complet|output|reply|generat",
    r"rank|place|position",
    r"rating|score|stars?|grade|quality",
)
_MINUTES, _MILLISECONDS = r"\bmin(ute)?s?\b|_min(ute)?s?$", r"_ms$|\bms\b|milli"


class Proposal:
    """Takes the columns of a file one role after the other; a column has one role.

    Args:
        sample: Records of the file.
        nobody: What to ask where no column looks like the annotator; None asks nothing.
    """

    def __init__(self, sample: Sequence[Mapping[str, Any]], *, nobody: str | None) -> None:
        self.nobody = nobody
        self.columns = columns_of(sample)
        self.values = {
            name: [record[name] for record in sample if record.get(name) not in (None, "")] for name in self.columns
        }
        self.filled = {name: [not is_blank(record.get(name)) for record in sample] for name in self.columns}
        self.families = families_of(self.columns)
        self.mapping: dict[str, Any] = {}
        self.questions: list[str] = []
        self.taken: set[str] = set()

    def made(self) -> dict[str, Any]:
        """What `drop.yaml` might say of these columns, and `open_questions` for a person."""
        responses = self._responses()
        self._take_responses(responses)
        for role in _NAMES:
            if role != "verdict" or not self.mapping.keys() & {"responses", "response"}:
                self._take_role(role)
        self._guess_by_content()
        self._ask_for_missing()
        words = Counter(str(value).strip().casefold() for value in self._held_by("verdict"))
        scale = propose_scale(words, self.questions)
        vocabulary = propose_vocabulary(words, scale, self._labels(responses), self.questions)
        self.mapping["dimensions"] = self._dimensions(responses, set(words))
        if self.nobody and "prompt" in self.mapping and "annotator" not in self.mapping:
            self.questions.append(self.nobody)
        return {
            "columns": self.columns,
            "fill_down": self._fill_down(),
            "mapping": self.mapping,
            "vocabulary": vocabulary,
            "scale": scale,
            "time_unit": self._time_unit(),
            "day_first": self._day_first(),
            "open_questions": self.questions,
        }

    def _responses(self) -> Family:
        """The columns of longest texts whose names differ only in their label."""

        def length(family: Family) -> float:
            return min(mean_length(self.values[name]) for name in family)

        longest = max(self.families, key=length, default=())
        return longest if longest and length(longest) >= LEAST_RESPONSE_CHARACTERS else ()

    def _take_responses(self, responses: Family) -> None:
        self.taken.update(responses)
        numbers = [
            family
            for family in self.families
            if len(family) == len(responses) and all(are_numbers(self.values[name]) for name in family)
        ]
        ranks = next((family for family in numbers if re.search(_RANKS, family[0].casefold())), ())
        order = self._order(responses) if len(responses) > 2 else None
        if ranks or order:
            self.mapping |= {"responses": list(responses), **({"ranks": list(ranks)} if ranks else {"ranking": order})}
            if order and not ranks:
                self.questions.append(f"Is {order} an order, best response first? (Not ranks in the order of columns.)")
        elif len(responses) > 2 and numbers:
            self.mapping |= {"responses": list(responses), "ratings": list(numbers[0])}
            self.questions.append(f"Are {', '.join(numbers[0])} ratings, higher for better?")
        elif len(responses) > 2:
            self.mapping["responses"] = list(responses)
            self.questions.append("No columns look like the order of the responses: name ranks, ratings or ranking.")
        elif responses:
            self.mapping |= dict(zip(("response_a", "response_b"), responses, strict=True))
        elif not self._take_one_a_row():
            self.questions.append("No two columns look like the responses: name them as response_a and response_b.")
        self.taken.update([*ranks, *self.mapping.get("ratings", []), *([order] if order else [])])

    def _take_one_a_row(self) -> bool:
        """Whether a row holds one response and its rating or rank; takes both columns then."""
        texts = [name for name in self.columns if mean_length(self.values[name]) >= LEAST_RESPONSE_CHARACTERS]
        response = next((name for name in texts if re.search(_RESPONSE, name.casefold())), None)
        repeated = any(len(set(map(str, self.values[name]))) < len(self.values[name]) for name in texts) or any(
            self._stands_once(name) for name in texts
        )
        numbers = [name for name in self.columns if _are_mostly_numbers(self.values[name])]
        found = [
            (role, name)
            for role, pattern in (("rank", _RANK), ("rating", _RATING))
            for name in numbers
            if re.search(pattern, "_".join(tokens_of(name)))
        ]
        if response is None or not repeated or not found:
            return False
        role, number = found[0]
        self.mapping |= {"response": response, role: number}
        self.taken.update((response, number))
        better = "1 for the best" if role == "rank" else "higher for better"
        self.questions.append(f"Is {number} the {role} of one response, {better}?")
        self.questions.append("Do the rows to be compared, of one prompt by one annotator, follow one another?")
        return True

    def _stands_once(self, name: str) -> bool:
        """Whether a column's value stands in the first of several rows only, as where cells are merged."""
        return self.filled[name][0] and not all(self.filled[name])

    def _fill_down(self) -> list[str]:
        """Columns that are empty below a prompt that stands once, and nowhere else."""
        prompt = self.mapping.get("prompt")
        if prompt is None or not self._stands_once(prompt):
            return []
        roles = ("prompt", "system", "response_a", "response_b", "annotator", "judged_at", "guideline_version")
        held = [self.mapping[role] for role in roles if role in self.mapping]
        found = [name for name in held if self.filled[name] == self.filled[prompt]]
        self.questions.append(f"Do empty cells of {', '.join(found)} hold what stands above them, as merged cells do?")
        return found

    def _order(self, responses: Family) -> str | None:
        """The column whose every value is an order of the responses."""
        names = names_of(responses)

        def is_order(value: Any) -> bool:
            try:
                return any(rank is not None for rank in ranks_of(value, names, len(responses)))
            except Unusable:
                return False

        for name in self.columns:
            values = self.values[name]
            if name not in self.taken and values and all(map(is_order, values)) and re.search(_ORDER, name.casefold()):
                return name
        return None

    def _take_role(self, role: str) -> None:
        fitting = [
            name
            for name in self.columns
            if name not in self.taken and re.search(_NAMES[role], "_".join(tokens_of(name))) and self._fits(role, name)
        ]
        if role == "verdict":  # a number for each of the two responses is a rating of them
            fitting = [name for name in fitting if name not in self._rated()]
        if fitting:
            best = max(fitting, key=lambda name: mean_length(self.values[name])) if role == "prompt" else fitting[0]
            self.mapping[role] = best
            self.taken.add(best)

    def _rated(self) -> set[str]:
        """Columns of numbers that stand in twos, one for each of two responses."""
        twos = [family for family in self.families if len(family) == 2] if "response_a" in self.mapping else []
        return {name for two in twos if all(are_numbers(self.values[one]) for one in two) for name in two}

    def _fits(self, role: str, name: str) -> bool:
        """Whether a column's values are of the kind its role has."""
        values = self.values[name]
        if not values:
            return False
        if role == "seconds":
            return all(map(_is_duration, values)) and "difference" not in tokens_of(name)
        if role == "judged_at":
            return any(
                all(Rules(FileRule(day_first=first)).time(value) is not None for value in values[:50])
                for first in (False, True)
            )
        if role == "strength":
            return all(map(is_strength, values))
        if role in {"verdict", "shown_first", "guideline_version"}:
            return all(isinstance(value, (str, int, float)) for value in values) and len(set(values)) <= MOST_WORDS
        return True

    def _guess_by_content(self) -> None:
        """Prompt and verdict by what their columns hold, where no name says which they are; both are asked about."""
        left = [name for name in self.columns if name not in self.taken and name and self.values[name]]
        if "prompt" not in self.mapping and self.mapping and left:
            longest = max(left, key=lambda name: mean_length(self.values[name]))
            if mean_length(self.values[longest]) >= LEAST_RESPONSE_CHARACTERS:
                self._guess("prompt", longest)
        if "verdict" not in self.mapping and "response_a" in self.mapping:
            spoken = [name for name in left if name not in self.taken and self._speaks_of_sides(name)]
            if spoken:
                self._guess("verdict", spoken[0])

    def _guess(self, role: str, name: str) -> None:
        self.mapping[role] = name
        self.taken.add(name)
        self.questions.append(f"Is {name} the {role}? Its name does not say so.")

    def _speaks_of_sides(self, name: str) -> bool:
        """Whether most of a column's few words say which response is better, or that none is."""
        if not self._fits("verdict", name):
            return False
        words = {str(value).strip().casefold() for value in self.values[name]}
        return len(words) > 1 and 2 * sum(meaning_of(word) is not None for word in words) > len(words)

    def _ask_for_missing(self) -> None:
        needed = ("prompt",) if self.mapping.keys() & {"responses", "response"} else ("prompt", "verdict")
        missing = [role for role in needed if role not in self.mapping]
        self.questions += [f"No column looks like the {role}: name it." for role in missing]
        if "verdict" not in self.mapping:
            self.mapping.pop("strength", None)

    def _dimensions(self, responses: Family, words: set[str]) -> dict[str, Any]:
        """Columns with the verdict's words, and pairs of columns that rate the two responses."""
        found: dict[str, Any] = {}
        for family in self.families if len(responses) == 2 else ():
            if (
                len(family) == 2
                and not self.taken & set(family)
                and all(are_numbers(self.values[one]) for one in family)
            ):
                shared = [token for token in tokens_of(family[0]) if token in tokens_of(family[1])]
                found["_".join(shared)] = list(family)
                self.taken.update(family)
        for name in self.columns:
            said = {str(value).strip().casefold() for value in self.values[name]}
            if name not in self.taken and len(said) > 1 and said <= words:
                found[name] = name
        return found

    def _labels(self, responses: Family) -> tuple[str, ...]:
        """What tells the two responses' columns apart: by itself, it may also be a verdict."""
        tokens = [tokens_of(name) for name in responses]
        return (
            tuple(
                next((one for one in some if one not in tokens[1 - place]), "") for place, some in enumerate(tokens[:2])
            )
            if len(tokens) == 2
            else ()
        )

    def _day_first(self) -> bool | None:
        """Whether dates with slashes can only be read with the day first."""
        return True if any(Rules().time(value) is None for value in self._held_by("judged_at")[:50]) else None

    def _held_by(self, role: str) -> list[Any]:
        """What the column of a role holds; nothing where none has it (a column's name may be empty)."""
        return self.values[self.mapping[role]] if role in self.mapping else []

    def _time_unit(self) -> str | None:
        name = str(self.mapping.get("seconds", "")).casefold()
        return "minutes" if re.search(_MINUTES, name) else "milliseconds" if re.search(_MILLISECONDS, name) else None


def columns_of(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all columns, in the order they are first met."""
    return list(dict.fromkeys(name for record in sample for name in record))


def _are_mostly_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and sum(are_numbers([value]) for value in values) >= 0.8 * len(values)


def _is_duration(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and duration_of(value) >= 0
    except (TypeError, ValueError):
        return False
