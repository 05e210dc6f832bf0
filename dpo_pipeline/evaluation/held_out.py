"""What the models are asked: held-out pairs, prompts and demonstrations, and whether training has seen them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.evaluation.near_copies import jaccard_of, near_copies
from dpo_pipeline.evaluation.preferences import PairScores
from dpo_pipeline.evaluation.replies import words_of
from dpo_pipeline.preferences.golden import SOURCE, held_out_rows
from dpo_pipeline.preferences.prompt_index import PromptIndex

Row = Mapping[str, Any]
Conversation = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The questions of one evaluation.

    Attributes:
        pairs: Held-out rows of preference_pairs the reference has scored, by pair_id.
        reference: The reference's log-probs of them, in the same order; None where no table of them was given.
        left_out: Held-out pairs the reference table lacks.
        prompts: The prompts to reply to: prompt_id, prompt, cluster_id, and the first pair's chosen and rejected.
        contamination: How many held-out prompts training has seen, by way; None: it could not be searched.
    """

    pairs: list[Row]
    reference: PairScores | None
    left_out: int
    prompts: list[Row]
    contamination: Mapping[str, int | float | None]

    @property
    def clusters(self) -> NDArray[np.str_]:
        """Prompt cluster of each pair, (N,)."""
        return np.array([pair["cluster_id"] for pair in self.pairs], dtype=str)


def read_held_out(
    pairs: Path,
    reference: Path | None,
    *,
    prompt_count: int,
    learned: Sequence[Conversation],
    reporter: Reporter | None = None,
) -> HeldOut:
    """The held-out pairs with their reference log-probs and the prompts to reply to.

    Args:
        pairs: A preference_pairs artifact folder.
        reference: A reference_logprobs artifact folder; None: the pairs are all to be scored.
        prompt_count: Most prompts to reply to, a golden set's first; chosen by the order of their ids, so the choice is
            stable as data grows.
        learned: The conversations SFT learned from, to look for held-out prompts among them.
        reporter: Told now and then how far a long search for near copies is.
    """
    path = pairs / "pairs.parquet"
    rows = sorted(held_out_rows(pairs).to_pylist(), key=lambda row: row["pair_id"])
    scored = None if reference is None else _reference_rows(reference, wanted={row["pair_id"] for row in rows})
    kept = rows if scored is None else [row for row in rows if row["pair_id"] in scored]
    seen = pq.read_table(path, columns=["prompt_id", "cluster_id"], filters=[("split", "=", "train")])
    contamination = {**_contamination(rows, seen.to_pydict(), learned), **_near_copies(pairs, rows, learned, reporter)}
    return HeldOut(
        kept,
        None if scored is None else as_scores([scored[row["pair_id"]] for row in kept]),
        len(rows) - len(kept),
        _prompts(rows, prompt_count),
        contamination,
    )


def as_scores(rows: Sequence[Row]) -> PairScores:
    """Rows with chosen_logp, rejected_logp, chosen_tokens and rejected_tokens as arrays."""
    return PairScores(
        np.array([row["chosen_logp"] for row in rows], dtype=np.float64),
        np.array([row["rejected_logp"] for row in rows], dtype=np.float64),
        np.array([row["chosen_tokens"] for row in rows], dtype=np.int64),
        np.array([row["rejected_tokens"] for row in rows], dtype=np.int64),
    )


def _reference_rows(reference: Path, *, wanted: set[str]) -> dict[str, Row]:
    columns = ["pair_id", "chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens"]
    table = pq.read_table(reference / "reference_logprobs.parquet", columns=columns)
    return {row["pair_id"]: row for row in table.to_pylist() if row["pair_id"] in wanted}


def _prompts(rows: list[Row], count: int) -> list[Row]:
    """One row per distinct prompt, the first `count` by prompt_id; those of a golden set come first."""
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: SOURCE not in row["sources"]):
        first.setdefault(row["prompt_id"], row)
    in_order = sorted(first, key=lambda prompt_id: (SOURCE not in first[prompt_id]["sources"], prompt_id))
    return [first[prompt_id] for prompt_id in in_order[:count]]


def _contamination(
    rows: list[Row], seen: Mapping[str, list[str]], conversations: Sequence[Conversation]
) -> Mapping[str, int]:
    """Held-out prompts that stand, or nearly stand, on the training side; all zero in a sound split."""
    trained_prompts, trained_clusters = set(seen["prompt_id"]), set(seen["cluster_id"])
    learned = {_fingerprint(conversation[:-1]) for conversation in conversations}
    prompts = {row["prompt_id"]: row for row in rows}
    return {
        "prompts": len(prompts),
        "in_training_pairs": sum(prompt_id in trained_prompts for prompt_id in prompts),
        "near_training_pairs": sum(row["cluster_id"] in trained_clusters for row in prompts.values()),
        "in_demonstrations": sum(_fingerprint(row["prompt"]) in learned for row in prompts.values()),
    }


def _near_copies(
    pairs: Path, rows: list[Row], conversations: Sequence[Conversation], reporter: Reporter | None
) -> Mapping[str, int | float | None]:
    """Held-out prompts with a near copy among those learned from, and trained ones like golden ones; searched anew."""
    jaccard = jaccard_of(pairs)
    if jaccard is None:
        found = dict.fromkeys(("near_copies", "near_demonstrations", "trained_like_golden"))
        return {**found, "near_copy_jaccard": None}
    copies = near_copies(pairs, jaccard=jaccard, reporter=reporter)
    learned = PromptIndex(_prompts_of(conversation[:-1] for conversation in conversations), similarity=jaccard)
    asked = {row["prompt_id"]: row["prompt"] for row in rows}
    return {
        "near_copies": len(copies.held_out),
        "near_demonstrations": int(learned.near(_prompts_of(asked.values())).sum()),
        "trained_like_golden": len(copies.like_golden),
        "near_copy_jaccard": jaccard,
    }


def _prompts_of(prompts: Iterable[Sequence[Mapping[str, str]]]) -> pa.ListArray:
    return pa.array([list(prompt) for prompt in prompts], MESSAGES)


def _fingerprint(messages: Sequence[Mapping[str, str]]) -> str:
    """Equal for conversations that differ only in case, spacing and punctuation."""
    return digest_of_json([[turn["role"], " ".join(words_of(turn["content"]))] for turn in messages])
