"""The texts of pairs as they may be trained on: cleaned and sorted once per drop, merged by every build.

Judgments come in any order, tables are sorted by pair. Each sketch puts its texts into that order, so a build only
reads them from front to back beside those of the other drops; no build cleans or sorts a text again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.tables import MESSAGES, column, table_schema
from dpo_pipeline.preferences.normalize import map_contents, training_text
from dpo_pipeline.preferences.personal_data import redact, redacted_by, says_redacted
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.texts import DropTables

TEXTS_FILE = "texts.parquet"
ROWS_AT_ONCE = 2_000
"""Rows of a row group: what a build holds of each drop at a time."""

TEXTS = table_schema(
    "sketch_texts",
    1,
    [
        column("prompt", MESSAGES, "The conversation, as it may be trained on; rows are those of the sketch's pairs."),
        column("low", pa.string(), "The low response, as it may be trained on."),
        column("high", pa.string(), "The high response, as it may be trained on."),
    ],
)


def cleaned(texts: pa.Table, settings: PreferenceSettings) -> pa.Table:
    """Texts as exported, as they may be trained on."""
    rules = redacted_by(settings)

    def clean(some: pa.StringArray) -> pa.StringArray:
        return redact(training_text(some), rules=rules)

    prompt, low, high = (texts.column(name).combine_chunks() for name in TEXTS.names)
    return pa.Table.from_arrays([map_contents(prompt, clean), clean(low), clean(high)], schema=TEXTS)


def open_texts(out: Path, settings: PreferenceSettings) -> pq.ParquetWriter:
    """A writer for the cleaned texts of a drop's pairs, `ROWS_AT_ONCE` at a time."""
    schema = TEXTS.with_metadata({**(TEXTS.metadata or {}), **says_redacted(redacted_by(settings))})
    # Read once or a few times, by this program: light compression, and no search for texts that repeat.
    return pq.ParquetWriter(out / TEXTS_FILE, schema, compression="lz4", use_dictionary=False)


class TextReader:
    """The texts of all drops, asked for in ascending order of pairs: every row group is decoded once.

    Raises:
        InputError: If the texts of a drop were redacted otherwise than the settings say.
    """

    def __init__(self, drops: Sequence[DropTables], settings: PreferenceSettings, stack: ExitStack) -> None:
        self._drops = []
        for drop in drops:
            file = stack.enter_context(pq.ParquetFile(drop.sketches / TEXTS_FILE, pre_buffer=False))
            if not says_redacted(redacted_by(settings)).items() <= (file.schema_arrow.metadata or {}).items():
                raise InputError(
                    f"the texts of drop {drop.name} were made with other rules for personal data",
                    expected=f"redacted: {', '.join(sorted(redacted_by(settings))) or 'nothing'}",
                    do="Materialize the sketches of the drop again",
                )
            self._drops.append(_DropReader(file))

    def take(self, drop: np.ndarray, row: np.ndarray) -> pa.Table:
        """The texts in some rows of some drops, `(K,)` each; within a drop never a row before one taken earlier."""
        numbers = np.unique(drop)
        here = [np.flatnonzero(drop == number) for number in numbers]
        table = pa.concat_tables(
            part for number, at in zip(numbers, here, strict=True) for part in self._drops[number].take(row[at])
        )
        return table.take(pa.array(np.argsort(np.concatenate(here)))).combine_chunks()


class _DropReader:
    def __init__(self, file: pq.ParquetFile) -> None:
        self.file = file
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self.bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.group, self.table = -1, TEXTS.empty_table()

    def take(self, rows: np.ndarray) -> Iterator[pa.Table]:
        groups = np.searchsorted(self.bounds, rows, "right") - 1
        for group in np.unique(groups):
            if group != self.group:
                self.group, self.table = int(group), self.file.read_row_group(int(group)).replace_schema_metadata()
            yield self.table.take(pa.array(rows[groups == group] - self.bounds[group]))
