"""The table `tokens.parquet` beside what was trained or scored: texts as tokens, so that none is tokenized twice.

A row group holds the conversations of one block, in the order in which they were encoded, so that whoever reads the
same table again, with some rows more or less, decodes each row group once and holds two at most.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.tables import column, open_writer, table_schema
from dpo_pipeline.modeling import CODE_VERSION
from dpo_pipeline.modeling.template import Conversation, Encoded, LeftOut, Tokens, what_shapes_tokens

TOKENS = "tokens.parquet"
ENCODING = b"encoding"
KEY_BYTES = 16
HELD_GROUPS = 2
IDS = pa.list_(pa.field("token", pa.int32(), nullable=False))

KEPT_TOKENS = table_schema(
    "tokens",
    1,
    [
        column("key", pa.binary(KEY_BYTES), "blake2b-128 of the conversation's roles and texts and of the responses."),
        column("prompt", IDS, "Token ids of the prompt, cut from the left to fit; empty where it was left out."),
        column(
            "responses",
            pa.list_(pa.field("response", IDS, nullable=False)),
            "Token ids of each response, end of turn included: chosen and rejected of a pair, one of a demonstration.",
        ),
        column("prompt_tokens_cut", pa.int32(), "How many tokens were cut from the left of the prompt."),
        column("left_out", pa.string(), "Why it cannot be trained on or scored; null where it can.", nullable=True),
    ],
)

Item = Encoded | LeftOut
Keys = npt.NDArray[np.bytes_]


def encoding_digest(tokenizer: Any, *, max_length: int) -> str:
    """What shapes tokens besides the text: tokenizer, chat template, longest conversation, the code that cuts."""
    return digest_of_json([CODE_VERSION, what_shapes_tokens(tokenizer), max_length])


def keys_of(prompts: Sequence[Conversation], responses: Sequence[Sequence[str]]) -> Keys:
    """One key per prompt with its responses, (N,); equal keys mean equal texts."""
    keys = bytearray()
    for prompt, replies in zip(prompts, responses, strict=True):
        said = [[[message["role"], message["content"]] for message in prompt], list(replies)]
        keys += blake2b(json.dumps(said).encode(), digest_size=KEY_BYTES).digest()
    return np.frombuffer(bytes(keys), f"S{KEY_BYTES}")


class KeptTokens:
    """The tokens of one artifact: keys in memory (24 bytes a conversation), tokens read when they are asked for.

    Args:
        path: A `tokens.parquet`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, dict[int, list[Item]]()
        with pq.ParquetFile(path) as file:
            footer, column = file.metadata, file.read(columns=["key"])["key"]
        sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        keys = np.frombuffer(b"".join(column.to_pylist()), f"S{KEY_BYTES}")
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    @staticmethod
    def encoding(path: Path) -> str | None:
        """The encoding a file was made under; None where there is no such file."""
        return (pq.read_schema(path).metadata or {}).get(ENCODING, b"").decode() if path.exists() else None

    def find(self, keys: Keys) -> list[Item | None]:
        """The tokens of each key, copied out of the row groups they lie in; None where it is not here."""
        found: list[Item | None] = [None] * len(keys)
        if not len(self._sorted):
            return found
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        asked = np.flatnonzero(self._sorted[at] == keys)
        rows = self._order[at[asked]]
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(groups).tolist():
            items = self._group(number)
            is_here = groups == number
            for place, row in zip(asked[is_here].tolist(), rows[is_here].tolist(), strict=True):
                found[place] = _copied(items[row - int(self._starts[number])])
        return found

    def _group(self, number: int) -> list[Item]:
        if number not in self._held:
            while len(self._held) >= HELD_GROUPS:
                del self._held[next(iter(self._held))]
            with pq.ParquetFile(self._path) as file:
                self._held[number] = list(_items(file.read_row_group(number)))
        return self._held[number]


class Keeping:
    """A `tokens.parquet` being written.

    Args:
        folder: Where.
        encoding: As `encoding_digest` gives it.
    """

    def __init__(self, folder: Path, encoding: str) -> None:
        self._schema = KEPT_TOKENS.with_metadata({**(KEPT_TOKENS.metadata or {}), ENCODING: encoding.encode()})
        self._writer = open_writer(folder / TOKENS, self._schema)

    def add(self, keys: Keys, items: Sequence[Item]) -> None:
        """Write a block as a row group."""
        if not items:
            return
        encoded = [None if isinstance(item, LeftOut) else item for item in items]
        responses = [() if item is None else item.responses for item in encoded]
        columns = [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys.tobytes())]),
            _lists([_NONE if item is None else item.prompt for item in encoded]),
            pa.ListArray.from_arrays(_offsets(responses), _lists([*chain.from_iterable(responses)])),
            pa.array([0 if item is None else item.prompt_tokens_cut for item in encoded], pa.int32()),
            pa.array([str(item) if isinstance(item, LeftOut) else None for item in items], pa.string()),
        ]
        cast = [array.cast(field.type) for array, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(cast, schema=self._schema), row_group_size=len(items))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


@contextmanager
def keeping(folder: Path, encoding: str) -> Iterator[Keeping]:
    """Keep what is added in a folder's `tokens.parquet`."""
    kept = Keeping(folder, encoding)
    try:
        yield kept
    finally:
        kept.close()


def _copied(item: Item) -> Item:
    """Without the row group it was a view of: a few pairs of each would otherwise hold a whole table in memory."""
    if isinstance(item, LeftOut):
        return item
    return Encoded(item.prompt.copy(), tuple(reply.copy() for reply in item.responses), item.prompt_tokens_cut)


_NONE: Tokens = np.empty(0, np.int32)


def _items(table: pa.Table) -> Iterator[Item]:
    """A row group's conversations, as views of its columns."""
    arrays = {name: table[name].combine_chunks() for name in table.column_names}
    prompts, responses = arrays["prompt"], arrays["responses"]
    ids, ends = prompts.values.to_numpy(), prompts.offsets.to_pylist()
    said, said_ends = responses.values.values.to_numpy(), responses.values.offsets.to_pylist()
    firsts, cuts, reasons = responses.offsets.to_pylist(), *(arrays[name].to_pylist() for name in KEPT_TOKENS.names[3:])
    for row, (cut, reason) in enumerate(zip(cuts, reasons, strict=True)):
        if reason is not None:
            yield LeftOut(reason)
            continue
        replies = range(firsts[row], firsts[row + 1])
        yield Encoded(
            ids[ends[row] : ends[row + 1]], tuple(said[said_ends[n] : said_ends[n + 1]] for n in replies), cut
        )


def _offsets(lists: Sequence[Sequence[Any] | Tokens]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, lists)]), pa.int32())


def _lists(lists: Sequence[Tokens]) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(lists), pa.array(np.concatenate([_NONE, *lists]), pa.int32()))
