"""The reference model as a table: its log-probs of every pair, computed once; only new pairs cost anything."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.lazy import Lazy
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.dpo.pairs import Numbers, Rows, encode_rows, reference_key
from dpo_pipeline.dpo.schemas import REFERENCE_LOGPROBS
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.device import capacity_in_words, choose_device, peak_memory_bytes
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.examples import EncodedPair, Places, TokenPairs
from dpo_pipeline.modeling.policy import open_for_training, policy_digest
from dpo_pipeline.modeling.scoring import score_encoded
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings
from dpo_pipeline.modeling.spawning import in_processes

TABLE = "reference_logprobs.parquet"
VALUES = ("chosen_logp", "rejected_logp")


@in_processes
def compute_reference(
    pairs: Path,
    checkpoint: Path,
    out: Path,
    *,
    known: Sequence[Path],
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> Outcome:
    """Write `reference_logprobs.parquet`, the checkpoint's log-probs of every pair of both splits, and their tokens.

    Args:
        pairs: The `preference_pairs` artifact folder.
        checkpoint: The `sft_checkpoint` artifact folder: the policy DPO starts from.
        out: Empty folder.
        known: Earlier artifacts of this kind; rows with the same key are taken over, and tokens of the same texts.
        model: Gives `max_length` and the adapter.
        compute: The machine.
        reporter: Hears how far the work is.

    Returns:
        Counts of pairs scored, reused and left out; books over the pairs.
    """
    started = time.monotonic()
    device = choose_device(compute)
    reporter.say(device.sentence)
    digest = policy_digest(checkpoint / "model")
    policy, tokenizer = open_for_training(checkpoint / "model", device, settings=model, compute=compute)
    encoder = Encoder(tokenizer, max_length=model.max_length, known=known)
    with encoder.keeping_in(out):
        encoded, rows = encode_rows(pairs, encoder)
    reporter.say(encoder.words)
    places, keys = encoded.pairs.rows, _keys(encoded.pairs, digest, device.precision)
    values, is_known = _known_values(known, keys)
    new = np.flatnonzero(~is_known)
    reporter.say(f"{len(keys) - len(new)} of {len(keys)} pairs are known; {len(new)} to score.")
    with capacity_in_words("scoring the reference"):
        scores = score_encoded(policy, Some(encoded.pairs, new), device=device, reporter=reporter)
        values[new] = scores[places[new]]
        values = values[_first_places(keys, keys).to_numpy()]  # pairs of the same tokens have the same numbers
        if processes.is_first():
            _write(out / TABLE, rows, encoded.pairs, keys, values)
    books = Books(len(rows.names), Counter(scored=len(keys)), 0, Counter(encoded.left_out.values()))
    books.assert_balanced(of="the reference table")
    return Outcome(
        counts={
            "pairs": len(keys),
            "prompts_cut": len(encoded.cut),
            "prompt_tokens_cut": sum(encoded.cut.values()),
        },
        facts={"policy_digest": digest, "precision": str(device.precision)},
        books=books,
        remarks={
            "scored": len(new),
            "reused": len(keys) - len(new),
            "tokenized": encoder.tokenized,
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory_bytes(device),
            "device": device.sentence,
        },
    )


def reference_of(pairs: Sequence[EncodedPair], folder: Path, *, policy_digest: str, precision: str) -> Numbers:
    """Chosen and rejected log-prob by a pair's row, (rows, 2), from a reference artifact.

    Raises:
        ArtifactError: If a pair is not in the table under this checkpoint, number format, template and length.
    """
    values, is_known = _known_values([folder], _keys(pairs, policy_digest, precision))
    if missing := int((~is_known).sum()):
        raise ArtifactError(
            f"{missing} of {len(pairs)} pairs are not in the reference table {folder / TABLE}",
            expected="one row per pair, made from the same checkpoint, template, max_length and precision",
            do="Materialize reference_logprobs again from this checkpoint and these pairs",
        )
    places = [pair.row for pair in pairs]
    by_row = np.full((1 + max(places, default=-1), 2), np.nan)
    by_row[places] = values
    return by_row


class Some(Lazy[EncodedPair]):
    """Some of the pairs."""

    def __init__(self, pairs: Sequence[EncodedPair], places: Places) -> None:
        self._pairs, self._places = pairs, places

    def __len__(self) -> int:
        return len(self._places)

    def item(self, place: int) -> EncodedPair:
        """The pair at a place among those chosen."""
        return self._pairs[int(self._places[place])]


def _keys(pairs: Sequence[EncodedPair], policy_digest: str, precision: str) -> pa.Array:
    return pa.array((reference_key(policy_digest, precision, pair) for pair in pairs), pa.string(), size=len(pairs))


def _known_values(folders: Sequence[Path], keys: pa.Array) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Chosen and rejected log-prob of each key, (keys, 2), and which of them the folders hold; of several the last."""
    values, is_known = np.zeros((len(keys), 2)), np.zeros(len(keys), bool)
    for folder in folders:
        path = folder / TABLE
        try:
            table = pq.read_table(path, columns=["key", *VALUES])
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(
                f"the reference table {path} cannot be read: {error}",
                do="Leave it out of `known`, or materialize reference_logprobs again",
            ) from error
        found = _first_places(keys, table["key"].combine_chunks())
        is_here = found.is_valid().to_numpy(zero_copy_only=False)
        places = found.drop_null().to_numpy()
        values[is_here] = np.column_stack([table[name].to_numpy() for name in VALUES])[places]
        is_known |= is_here
    return values, is_known


def _first_places(keys: pa.Array, among: pa.Array) -> pa.Array:
    """Where each key is met first; null where it is not."""
    return pc.call_function("index_in", [keys], pc.SetLookupOptions(value_set=among))


def _write(path: Path, rows: Rows, pairs: TokenPairs, keys: pa.Array, values: Numbers) -> None:
    places = pa.array(pairs.rows)
    columns = {
        "pair_id": rows.names.column.take(places),
        "split": rows.splits.column.take(places),
        "key": keys,
        "chosen_logp": values[:, 0],
        "rejected_logp": values[:, 1],
        "chosen_tokens": np.fromiter((len(pair.chosen) for pair in pairs), np.int32, len(pairs)),
        "rejected_tokens": np.fromiter((len(pair.rejected) for pair in pairs), np.int32, len(pairs)),
    }
    write_table(path, pa.table(columns, schema=REFERENCE_LOGPROBS))
