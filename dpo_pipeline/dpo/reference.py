"""The reference model as a table: its log-probs of every pair, computed once; only new pairs cost anything."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.dpo.pairs import PreferencePairs, read_pairs, reference_key
from dpo_pipeline.dpo.schemas import REFERENCE_LOGPROBS
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.batches import EncodedPair
from dpo_pipeline.modeling.device import capacity_in_words, choose_device, peak_memory_bytes
from dpo_pipeline.modeling.policy import open_for_training, policy_digest
from dpo_pipeline.modeling.scoring import encode_pairs, score_encoded
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
    """Write `reference_logprobs.parquet`: the checkpoint's log-probs of every pair of both splits.

    Args:
        pairs: The `preference_pairs` artifact folder.
        checkpoint: The `sft_checkpoint` artifact folder: the policy DPO starts from.
        out: Empty folder.
        known: Earlier artifacts of this kind; rows with the same key are taken over.
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
    rows = read_pairs(pairs)
    encoded = encode_pairs(tokenizer, rows.texts, max_length=model.max_length)
    keys = {pair.row: reference_key(digest, device.precision, pair) for pair in encoded.pairs}
    found = _known_rows(known, set(keys.values()))
    new = [pair for pair in encoded.pairs if keys[pair.row] not in found]
    reporter.say(f"{len(encoded.pairs) - len(new)} of {len(encoded.pairs)} pairs are known; {len(new)} to score.")
    with capacity_in_words("scoring the reference"):
        scores = score_encoded(policy, new, device=device, reporter=reporter)
        values = {**found, **{keys[row]: pair for row, pair in scores.items()}}
        if processes.is_first():
            _write(out / TABLE, rows, encoded.pairs, keys, values)
    books = Books(len(rows.texts), Counter(scored=len(encoded.pairs)), 0, Counter(encoded.left_out.values()))
    books.assert_balanced(of="the reference table")
    return Outcome(
        counts={
            "pairs": len(encoded.pairs),
            "prompts_cut": len(encoded.cut),
            "prompt_tokens_cut": sum(encoded.cut.values()),
        },
        facts={"policy_digest": digest, "precision": str(device.precision)},
        books=books,
        remarks={
            "scored": len(new),
            "reused": len(encoded.pairs) - len(new),
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory_bytes(device),
            "device": device.sentence,
        },
    )


def reference_of(
    pairs: Sequence[EncodedPair], folder: Path, *, policy_digest: str, precision: str
) -> dict[int, tuple[float, float]]:
    """Chosen and rejected log-prob of each pair by its row, from a reference artifact.

    Raises:
        ArtifactError: If a pair is not in the table under this checkpoint, number format, template and length.
    """
    found = _known_rows([folder], None)
    keys = {pair.row: reference_key(policy_digest, precision, pair) for pair in pairs}
    missing = sum(key not in found for key in keys.values())
    if missing:
        raise ArtifactError(
            f"{missing} of {len(keys)} pairs are not in the reference table {folder / TABLE}",
            expected="one row per pair, made from the same checkpoint, template, max_length and precision",
            do="Materialize reference_logprobs again from this checkpoint and these pairs",
        )
    return {row: found[key] for row, key in keys.items()}


def _known_rows(folders: Sequence[Path], wanted: set[str] | None) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for folder in folders:
        path = folder / TABLE
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(
                f"the reference table {path} cannot be read: {error}",
                do="Leave it out of `known`, or materialize reference_logprobs again",
            ) from error
        with file:
            for batch in file.iter_batches(columns=["key", *VALUES]):
                keys, chosen, rejected = (batch.column(name).to_pylist() for name in ("key", *VALUES))
                for key, *values in zip(keys, chosen, rejected, strict=True):
                    if wanted is None or key in wanted:
                        found[key] = (values[0], values[1])
    return found


def _write(
    path: Path,
    rows: PreferencePairs,
    pairs: Sequence[EncodedPair],
    keys: Mapping[int, str],
    values: Mapping[str, tuple[float, float]],
) -> None:
    columns = {
        "pair_id": [rows.texts[pair.row].pair_id for pair in pairs],
        "split": [rows.splits[pair.row] for pair in pairs],
        "key": [keys[pair.row] for pair in pairs],
        "chosen_logp": [values[keys[pair.row]][0] for pair in pairs],
        "rejected_logp": [values[keys[pair.row]][1] for pair in pairs],
        "chosen_tokens": [len(pair.chosen) for pair in pairs],
        "rejected_tokens": [len(pair.rejected) for pair in pairs],
    }
    write_table(path, pa.table(columns, schema=REFERENCE_LOGPROBS))
