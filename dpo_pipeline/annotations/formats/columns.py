"""Any spreadsheet or in-house export whose columns `drop.yaml` names: A/B and a verdict, K responses, or one a row."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dpo_pipeline.annotations.drop_rules import ColumnMapping
from dpo_pipeline.annotations.formats.kway import pairs_by_rank, pairs_by_rating, with_differences
from dpo_pipeline.annotations.formats.shared import prompt_of, stripped_or_none
from dpo_pipeline.annotations.orders import names_of, ranks_of
from dpo_pipeline.annotations.quantities import number_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Judgment, Part, Unusable, kind_of, response_of, shown
from dpo_pipeline.annotations.rules import Rules, field

NAME = "columns"

Getter = Callable[[str | None], Any]
"""Reads a column; None where there is no such column, or no name."""


def fits(sample: Sequence[Mapping[str, Any]], mapping: ColumnMapping) -> bool:
    """Whether most records have the columns a mapping names: a mapping holds for the files that do."""
    whole = sum(all(field(record, column) is not None for column in mapping.needed_columns) for record in sample)
    return whole * 2 > len(sample)


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:  # noqa: ARG001
    """Never by content alone: only a mapping tells."""
    return 0.0


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    read = rules.derived.get(NAME)
    if read is None:
        read = rules.derived[NAME] = _reader(rules)
    return read(record)


def _reader(rules: Rules) -> Callable[[Mapping[str, Any]], Sequence[Part]]:
    """A reader of records for a file's mapping, which is looked up once and not for every record."""
    mapping = rules.file.mapping
    if mapping is None:
        raise Unusable(Reason.UNKNOWN_FORMAT, "drop.yaml has no mapping for this file")
    if mapping.responses:
        return partial(_ranking, mapping=mapping, getter_of=_getters(mapping), rules=rules)
    if mapping.response is not None:
        return partial(_rows, mapping=mapping, getter_of=_getters(mapping), rules=rules)
    assert mapping.response_a  # the mapping's own validation sees to it
    assert mapping.response_b
    names = (mapping.prompt, mapping.response_a, mapping.response_b, mapping.verdict)
    name_prompt, name_a, name_b, name_verdict = names
    stated, dimensions, name_degree = rules.file.guideline_version, mapping.dimensions, mapping.strength
    sft_allowed, getter_of = rules.sft_allowed(), _getters(mapping)
    name_why, name_version, name_side = mapping.justification, mapping.guideline_version, mapping.shown_first
    name_who, name_seconds, name_time, name_system = (
        mapping.annotator,
        mapping.seconds,
        mapping.judged_at,
        mapping.system,
    )

    def read(record: Mapping[str, Any]) -> Sequence[Part]:
        get = getter_of(record)
        prompt = get(name_prompt)
        a, b = _response(get(name_a), name_a), _response(get(name_b), name_b)
        choice, strength = rules.verdict(get(name_verdict))
        if name_degree is not None:
            choice, strength = rules.strengthened((choice, strength), get(name_degree))
        version, side = get(name_version), get(name_side)
        return (
            Judgment(
                prompt_of(prompt, name_prompt, system=get(name_system)),
                a,
                b,
                choice,
                strength,
                rules.annotator(get(name_who)),
                1,
                rules.dimensions(dimensions, get) if dimensions else (),
                stripped_or_none(get(name_why)),
                None if side is None else rules.shown_first(side, a=name_a, b=name_b),
                rules.mapped_seconds(get(name_seconds)),
                rules.time(get(name_time)),
                stated if version in (None, "") else str(version),
                None,
                sft_allowed,
            ),
        )

    return read


def _ranking(
    record: Mapping[str, Any], mapping: ColumnMapping, getter_of: Callable[[Mapping[str, Any]], Getter], rules: Rules
) -> Sequence[Part]:
    """The pairs of K responses with ranks or ratings; a response without text and number is simply not there."""
    get = getter_of(record)
    responses, numbers = _ranked(get, mapping, rules) if mapping.ranking else _numbered(get, mapping)
    fields = {
        "annotator": rules.annotator(get(mapping.annotator)),
        "justification": stripped_or_none(get(mapping.justification)),
        "seconds": rules.mapped_seconds(get(mapping.seconds)),
        "judged_at": rules.time(get(mapping.judged_at)),
        "guideline_version": stripped_or_none(get(mapping.guideline_version)) or rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    prompt = prompt_of(get(mapping.prompt), mapping.prompt, system=get(mapping.system))
    if mapping.ratings:
        ratings = [number for number in numbers if number is not None]
        return pairs_by_rating(prompt, responses, ratings, group="ratings", step=rules.file.rating_step, **fields)
    return pairs_by_rank(prompt, responses, numbers, group="ranking", **fields)


def joined_by(rules: Rules) -> Callable[[Mapping[str, Any]], Any] | None:
    """What rows of one record have in common, where a row holds one response: who judged which prompt."""
    mapping = rules.file.mapping
    if mapping is None or mapping.response is None:
        return None
    getter_of = _getters(mapping)

    def key_of(row: Mapping[str, Any]) -> Any:
        get = getter_of(row)
        key = [get(name) for name in (mapping.system, mapping.prompt, mapping.annotator)]
        return None if key[1] in (None, "") else key

    return key_of


def _rows(
    record: Mapping[str, Any], mapping: ColumnMapping, getter_of: Callable[[Mapping[str, Any]], Getter], rules: Rules
) -> Sequence[Part]:
    """The pairs of rows that hold one response each; who, which prompt and which guideline the first row says."""
    rows, column = [getter_of(row) for row in record.get("rows", [record])], mapping.rating or mapping.rank
    assert column is not None  # the mapping's own validation sees to it
    if len(rows) < 2:
        detail = (
            "no row beside it holds another response to the same prompt; rows to be compared must follow one another"
        )
        raise Unusable(Reason.TOO_FEW_RESPONSES, detail)
    gets, responses, numbers, broken = [], [], [], []
    for place, get in enumerate(rows, start=1):
        try:
            texts, number = _response(get(mapping.response), str(mapping.response)), _number(get(column), column)
        except Unusable as problem:
            broken.append(Unusable(problem.reason, f"row {place} of {len(rows)}: {problem.detail}"))
        else:
            gets, responses, numbers = [*gets, get], [*responses, texts], [*numbers, number]
    if len(gets) < 2:
        return broken
    first = gets[0]
    seconds = [rules.mapped_seconds(get(mapping.seconds)) for get in gets]
    times = [time for get in gets if (time := rules.time(get(mapping.judged_at))) is not None]
    said = [why for get in gets if (why := stripped_or_none(get(mapping.justification))) is not None]
    fields = {
        "annotator": rules.annotator(first(mapping.annotator)),
        "justification": "\n".join(dict.fromkeys(said)) or None,
        "seconds": sum(one for one in seconds if one is not None) if any(one is not None for one in seconds) else None,
        "judged_at": max(times, default=None),
        "guideline_version": stripped_or_none(first(mapping.guideline_version)) or rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    prompt = prompt_of(first(mapping.prompt), mapping.prompt, system=first(mapping.system))
    if mapping.rank is not None:
        parts = pairs_by_rank(prompt, responses, numbers, group="rows", **fields)
    else:
        parts = pairs_by_rating(prompt, responses, numbers, group="rows", step=rules.file.rating_step, **fields)
    named = [(name, where) for name, where in mapping.dimensions.items() if isinstance(where, str)]
    aspects = [_aspects(get, named, rules) for get in gets]
    return [*(with_differences(parts, responses, aspects) if named else parts), *broken]


def _aspects(get: Getter, named: Sequence[tuple[str, str]], rules: Rules) -> dict[str, float]:
    """A row's rating per dimension, in steps; those left out that were not given or are no numbers (noted)."""
    found: dict[str, float] = {}
    for name, where in named:
        value = get(where)
        if value in (None, ""):
            continue
        number = rules.number(value, otherwise=math.nan)
        if math.isnan(number):
            rules.notes["unreadable_dimension"] += 1
        else:
            found[name] = number / rules.file.rating_step
    return found


def _numbered(get: Getter, mapping: ColumnMapping) -> tuple[list[str], list[float | None]]:
    """The responses and their ranks or ratings, those left out of which neither text nor number is there."""
    responses: list[str] = []
    numbers: list[float | None] = []
    for name, column in zip(mapping.responses, mapping.ranks or mapping.ratings, strict=True):
        text, number = get(name), get(column)
        if text in (None, "") and number in (None, ""):
            continue
        responses.append(_response(text, name))
        numbers.append(_number(number, column))
    return responses, numbers


def _ranked(get: Getter, mapping: ColumnMapping, rules: Rules) -> tuple[list[str], list[float | None]]:
    """The responses that are there, and their ranks in the one cell that holds all of them."""
    names = rules.derived.get("names")
    if names is None:
        names = rules.derived["names"] = names_of(mapping.responses)
    ranks = ranks_of(get(mapping.ranking), names, len(mapping.responses))
    there = [
        (name, get(name), rank)
        for name, rank in zip(mapping.responses, ranks, strict=True)
        if rank is not None or get(name) not in (None, "")
    ]
    return [_response(text, name) for name, text, _ in there], [rank for _, _, rank in there]


def _number(value: Any, column: str) -> float:
    if value in (None, ""):
        raise Unusable(Reason.MISSING_FIELD, f"{column} is empty")
    try:
        number = math.nan if isinstance(value, bool) else number_of(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"{column} is {shown(value)}, a number was expected")
    return number


def _getters(mapping: ColumnMapping) -> Callable[[Mapping[Any, Any]], Getter]:
    """For a record, what reads its columns by name: a dictionary's own method, unless a name is a path."""
    if any("." in column for column in mapping.columns):
        return lambda record: lambda name: None if name is None else field(record, name)
    return lambda record: record.get


def _response(value: Any, column: str) -> str:
    if type(value) is str:
        return response_of(value, column)
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, f"{column} is missing")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # a spreadsheet turns the answer "42" into a number
    raise Unusable(Reason.WRONG_TYPE, f"{column} is {kind_of(value)}, a text was expected")
