"""A first draft of a drop's mapping, from the names and values of a file's columns; a person confirms it."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.proposal import Proposal, columns_of
from dpo_pipeline.annotations.reading import tables_of
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.registry import ExportFormat, recognise
from dpo_pipeline.annotations.rules import Rules, object_in
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sources import Source, sources_of_file

SAMPLE_RECORDS = 1_000
NOBODY = "No column looks like the annotator: without one nobody's work can be told apart."
NOBODY_BUT_SHEETS = (
    "No column looks like the annotator. If each sheet is one person's, add `sheet_column: sheet` here and "
    "`annotator: sheet` to the mapping."
)
NESTED = 4
"""Objects inside one another that are looked into."""


def propose_mapping(path: Path, *, settings: AnnotationSettings | None = None) -> dict[str, Any]:
    """What `drop.yaml` might say about a file.

    Args:
        path: An export file.
        settings: Bounds of reading.

    Returns:
        `match` (the file's name), `format` (recognised, else None), `columns` (names), and, where no format is
        recognised, `mapping`, `vocabulary`, `scale`, `time_unit`, `day_first` to copy into `drop.yaml`, and
        `open_questions`: one sentence for each thing that a person must fill in or confirm.
    """
    settings = settings or AnnotationSettings()
    sample = next(
        (found for source in sources_of_file(path, settings) if (found := sample_of(source, settings))),
        list[Mapping[str, Any]](),
    )
    found = recognise(sample, Rules(settings=settings))
    proposal = {"match": path.name, "format": found.NAME if found else None, "columns": columns_of(sample)}
    return proposal | (propose_for(sample) if found is None else {"open_questions": []})


def sample_of(source: Source, settings: AnnotationSettings, rule: FileRule | None = None) -> list[Mapping[str, Any]]:
    """The first usable records of the first table of a file that has any."""
    for _, entries in tables_of(source, settings, rule):
        values = (value for _, value, _ in islice(entries, SAMPLE_RECORDS))
        if sample := [value for value in values if not isinstance(value, Unusable)]:
            return sample
    return []


def propose_for(
    sample: Sequence[Mapping[str, Any]], export: ExportFormat | None = None, *, sheets: int = 1
) -> dict[str, Any]:
    """`mapping`, `vocabulary`, `scale`, `time_unit` and `open_questions` for some records.

    Args:
        sample: The records.
        export: The format they are in, if it is one that needs a mapping: then what the mapping would be given.
        sheets: How many the file has; of several each may be one person's.
    """
    rows_of = getattr(export, "mapped_rows", None)
    rows = list(sample) if rows_of is None else [row for record in sample for row in rows_of(record)]
    # A known format knows its annotators.
    nobody = None if export is not None else NOBODY_BUT_SHEETS if sheets > 1 else NOBODY
    return Proposal([flattened(row) for row in rows], nobody=nobody).made()


def flattened(record: Mapping[str, Any], *, depth: int = NESTED) -> dict[str, Any]:
    """A record without objects in it: their fields under the names by which a mapping reaches them.

    >>> flattened({"id": 1, "data": {"prompt": "Hi", "a.b": 2}})
    {'id': 1, 'data.prompt': 'Hi'}
    """
    found: dict[str, Any] = {}
    for name, held in record.items():
        inside = object_in(held) if isinstance(held, str) else None
        value = held if inside is None else inside
        if isinstance(value, dict) and value and depth and "." not in str(name):
            found |= {f"{name}.{key}": one for key, one in flattened(value, depth=depth - 1).items()}
        elif depth == NESTED or "." not in str(name):  # a dot in an inner name is taken for a step further in
            found[str(name)] = value
    return found
