"""The preference pairs as training and the reference pass read them: text, tokens, weights."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.modeling.batches import EncodedPair, Group, group_pairs
from dpo_pipeline.modeling.device import Device
from dpo_pipeline.modeling.scoring import Pair, encode_pairs
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.modeling.stopping import is_kept_aside
from dpo_pipeline.preferences.golden import golden_rows

PAIRS = "pairs.parquet"
COLUMNS = ["pair_id", "split", "prompt", "chosen", "rejected", "p_chosen", "margin"]


class PreferencePairs(NamedTuple):
    """The rows of pairs.parquet in its order: texts, splits ("train" or "held_out"), p_chosen and margin."""

    texts: list[Pair]
    splits: list[str]
    p_chosen: list[float]
    margins: list[float]

    def of_split(self, split: str) -> "PreferencePairs":
        """The rows of one split, in order."""
        rows = [row for row, name in enumerate(self.splits) if name == split]
        return PreferencePairs(
            [self.texts[row] for row in rows],
            [split] * len(rows),
            [self.p_chosen[row] for row in rows],
            [self.margins[row] for row in rows],
        )


def read_pairs(folder: Path) -> PreferencePairs:
    """All pairs of a `preference_pairs` artifact folder; the golden ones last, each once, with its own verdict."""
    pairs = PreferencePairs([], [], [], [])
    golden = golden_rows(folder, COLUMNS).to_pylist()
    own = {row["pair_id"] for row in golden}
    others = (row for row in _rows(folder / PAIRS) if row["pair_id"] not in own)
    for row in chain(others, golden):
        pairs.texts.append(Pair(row["pair_id"], row["prompt"], row["chosen"], row["rejected"]))
        pairs.splits.append(row["split"])
        pairs.p_chosen.append(row["p_chosen"])
        pairs.margins.append(row["margin"])
    return pairs


def reference_key(policy_digest: str, precision: str, pair: EncodedPair) -> str:
    """The identity of a reference row: weights, number format, every token of the pair (so template and cut, too)."""
    digest = hashlib.blake2b(f"{policy_digest}\0{precision}\0".encode(), digest_size=16)
    for tokens in (pair.prompt, pair.chosen, pair.rejected):
        digest.update(len(tokens).to_bytes(8, "little"))
        digest.update(tokens.astype("<i4").tobytes())
    return digest.hexdigest()


def pair_weights(p_chosen: Sequence[float], *, use_agreement: bool) -> list[float]:
    """How much each pair counts: 1, or 2 p - 1 where annotators' agreement is to count.

    >>> pair_weights([1.0, 0.75], use_agreement=True)
    [1.0, 0.5]
    """
    return [2 * p - 1 if use_agreement else 1.0 for p in p_chosen]


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

    groups: list[Group]
    validation: list[Group]
    encoded: list[EncodedPair]
    names: list[str]
    weights: list[float]
    strengths: list[float]
    cut: dict[str, int]
    left_out: dict[str, str]
    books: Books


def read_training_pairs(
    folder: Path, tokenizer: Any, *, dpo: DpoSettings, model: ModelSettings, device: Device
) -> TrainingPairs:
    """The train split of a `preference_pairs` artifact folder as tokens, grouped by prompt.

    Raises:
        InputError: If no pair is left to learn from.
    """
    rows = read_pairs(folder).of_split("train")
    encoded = encode_pairs(tokenizer, rows.texts, max_length=model.max_length)
    groups = group_pairs(encoded.pairs, most_pairs=dpo.batch_size, most_tokens=device.batch_tokens)
    kept_aside = [is_kept_aside(group, share=dpo.validation_share, seed=model.seed) for group in groups]
    train = [group for group, aside in zip(groups, kept_aside, strict=True) if not aside]
    validation = [group for group, aside in zip(groups, kept_aside, strict=True) if aside]
    kept = Counter(trained=_pair_count(train), validation=_pair_count(validation))
    books = Books(len(rows.texts), kept, 0, Counter(encoded.left_out.values()))
    books.assert_balanced(of="the training pairs")
    if not train:
        raise InputError("no pair is left to learn from", do=f"Look at the books: {books.as_dict()}")
    return TrainingPairs(
        groups=train,
        validation=validation,
        encoded=encoded.pairs,
        names=[pair.pair_id for pair in rows.texts],
        weights=pair_weights(rows.p_chosen, use_agreement=dpo.use_agreement),
        strengths=rows.margins,
        cut=encoded.cut,
        left_out=encoded.left_out,
        books=books,
    )


def _pair_count(groups: Sequence[Group]) -> int:
    return sum(len(group.comparisons) for group in groups)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(4_096, columns=COLUMNS):
            yield from batch.to_pylist()
