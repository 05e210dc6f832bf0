"""The preference pairs as training and the reference pass read them: text, tokens, weights."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.lazy import Lazy
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.modeling.batches import Group
from dpo_pipeline.modeling.device import Device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.examples import EncodedPair, group_pairs
from dpo_pipeline.modeling.scoring import EncodedPairs, Pair, encode_more
from dpo_pipeline.modeling.stopping import is_kept_aside
from dpo_pipeline.preferences.golden import golden_rows

PAIRS = "pairs.parquet"
COLUMNS = ["pair_id", "split", "prompt", "chosen", "rejected", "p_chosen", "margin"]
KEPT = pa.schema(
    [("pair_id", pa.string()), ("split", pa.string()), ("p_chosen", pa.float64()), ("margin", pa.float64())]
)
ROWS_AT_ONCE = 4_096

Numbers = npt.NDArray[np.float64]


class Strings(Lazy[str]):
    """A column of strings as Arrow holds it."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column.combine_chunks()

    def __len__(self) -> int:
        return len(self.column)

    def item(self, place: int) -> str:
        """The string at a place."""
        return self.column[place].as_py()


class Rows(NamedTuple):
    """What is kept of pairs.parquet beside the tokens, by row: all but the texts.

    Attributes:
        names: Pair ids.
        splits: "train" or "held_out".
        p_chosen: How sure the annotators are together.
        margins: Their mean strength toward chosen, 0..3.
    """

    names: Strings
    splits: Strings
    p_chosen: Numbers
    margins: Numbers


def iterate_pairs(folder: Path, split: str | None = None) -> Iterator[list[dict[str, Any]]]:
    """All pairs of a `preference_pairs` artifact folder in blocks; the golden ones last, each with its own verdict.

    Args:
        folder: The artifact's folder.
        split: Only pairs of this split.
    """
    golden = golden_rows(folder, COLUMNS).to_pylist()
    own = {row["pair_id"] for row in golden}
    with pq.ParquetFile(folder / PAIRS) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=COLUMNS):
            rows = batch if split is None else batch.filter(pc.field("split") == split)
            yield [row for row in rows.to_pylist() if row["pair_id"] not in own]
    yield [row for row in golden if split in {None, row["split"]}]


def encode_rows(folder: Path, encoder: Encoder, *, split: str | None = None) -> tuple[EncodedPairs, Rows]:
    """The pairs as tokens, block by block so that texts are never all in memory, and what else is known of each."""
    encoded, kept, count = EncodedPairs.none(), list[pa.RecordBatch](), 0
    for block in iterate_pairs(folder, split):
        pairs = [Pair(row["pair_id"], row["prompt"], row["chosen"], row["rejected"]) for row in block]
        encode_more(encoded, encoder, pairs, first_row=count)
        kept.append(pa.RecordBatch.from_pylist(block, KEPT))
        count += len(block)
    table = pa.Table.from_batches(kept, KEPT)
    numbers = (table[name].to_numpy() for name in ("p_chosen", "margin"))
    return encoded, Rows(Strings(table["pair_id"]), Strings(table["split"]), *numbers)


def reference_key(policy_digest: str, precision: str, pair: EncodedPair) -> str:
    """The identity of a reference row: weights, number format, every token of the pair (so template and cut, too)."""
    digest = hashlib.blake2b(f"{policy_digest}\0{precision}\0".encode(), digest_size=16)
    for tokens in (pair.prompt, pair.chosen, pair.rejected):
        digest.update(len(tokens).to_bytes(8, "little"))
        digest.update(tokens.astype("<i4").tobytes())
    return digest.hexdigest()


def pair_weights(p_chosen: Numbers, *, use_agreement: bool) -> Numbers:
    """How much each pair counts: 1, or 2 p - 1 where annotators' agreement is to count.

    >>> pair_weights(np.array([1.0, 0.75]), use_agreement=True).tolist()
    [1.0, 0.5]
    """
    return 2 * p_chosen - 1 if use_agreement else np.ones(len(p_chosen))


class TrainingPairs(NamedTuple):
    """The train split, ready for the loop.

    Attributes:
        groups: To learn from.
        validation: Kept aside, by prompt, to watch the training on.
        encoded: The pairs of both, as tokens.
        names: Pair ids by a comparison's `row`.
        weights: How much each pair counts, by row.
        strengths: Annotators' mean strength toward chosen, 0..3, by row.
        cut: Prompt tokens cut, by pair id.
        left_out: Reason code, by pair id.
        books: In = trained + validation + rejected by reason.
    """

    groups: Sequence[Group]
    validation: Sequence[Group]
    encoded: Sequence[EncodedPair]
    names: Sequence[str]
    weights: Numbers
    strengths: Numbers
    cut: dict[str, int]
    left_out: dict[str, str]
    books: Books


def read_training_pairs(
    folder: Path, encoder: Encoder, *, dpo: DpoSettings, seed: int, device: Device
) -> TrainingPairs:
    """The train split of a `preference_pairs` artifact folder as tokens, grouped by prompt.

    Raises:
        InputError: If no pair is left to learn from.
    """
    encoded, rows = encode_rows(folder, encoder, split="train")
    groups = group_pairs(encoded.pairs, most_pairs=dpo.batch_size, most_tokens=device.batch_tokens)
    share = dpo.validation_share
    is_aside = np.fromiter((is_kept_aside(group, share=share, seed=seed) for group in groups), bool, len(groups))
    train, validation = groups.select(~is_aside), groups.select(is_aside)
    kept = Counter(trained=sum(train.pair_counts), validation=sum(validation.pair_counts))
    books = Books(len(rows.names), kept, 0, Counter(encoded.left_out.values()))
    books.assert_balanced(of="the training pairs")
    if not train:
        raise InputError("no pair is left to learn from", do=f"Look at the books: {books.as_dict()}")
    return TrainingPairs(
        groups=train,
        validation=validation,
        encoded=encoded.pairs,
        names=rows.names,
        weights=pair_weights(rows.p_chosen, use_agreement=dpo.use_agreement),
        strengths=rows.margins,
        cut=encoded.cut,
        left_out=encoded.left_out,
        books=books,
    )
