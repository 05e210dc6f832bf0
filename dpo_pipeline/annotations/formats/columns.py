"""Any spreadsheet or in-house export whose columns `drop.yaml` names: A/B and a verdict, or K responses in order."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dpo_pipeline.annotations.drop_rules import ColumnMapping
from dpo_pipeline.annotations.formats.kway import pairs_by_rank, pairs_by_rating
from dpo_pipeline.annotations.formats.shared import prompt_of, stripped_or_none
from dpo_pipeline.annotations.orders import names_of, ranks_of
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
                rules.seconds(get(name_seconds)),
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
        "seconds": rules.seconds(get(mapping.seconds)),
        "judged_at": rules.time(get(mapping.judged_at)),
        "guideline_version": stripped_or_none(get(mapping.guideline_version)) or rules.file.guideline_version,
        "sft_allowed": rules.sft_allowed(),
    }
    prompt = prompt_of(get(mapping.prompt), mapping.prompt, system=get(mapping.system))
    if mapping.ratings:
        ratings = [number for number in numbers if number is not None]
        return pairs_by_rating(prompt, responses, ratings, group="ratings", step=rules.file.rating_step, **fields)
    return pairs_by_rank(prompt, responses, numbers, group="ranking", **fields)


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
        number = math.nan if isinstance(value, bool) else float(value)
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
