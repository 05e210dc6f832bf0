"""A golden set: pairs pinned by their digest, on which every model is evaluated and no model is trained.

Its pairs stand in a table of their own beside `pairs.parquet`: nobody judged them here, so they are in no books. Their
prompts join the split as held out before any drop: whatever resembles one of them is held out too, never trained on,
neither as a pair nor as a demonstration. The evaluation asks them first and shows them as a slice of their own.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.annotations.records import Unusable, check_prompt
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.tables import MESSAGES, write_table
from dpo_pipeline.preferences.benchmarks import rows_of
from dpo_pipeline.preferences.catalogue import SketchedPrompts
from dpo_pipeline.preferences.identifiers import from_hex, to_hex
from dpo_pipeline.preferences.near_duplicates import components, jaccard, propose
from dpo_pipeline.preferences.normalize import (
    map_contents,
    pair_keys,
    prompt_keys,
    response_order,
    text_keys,
    training_text,
)
from dpo_pipeline.preferences.personal_data import redact_conversations, redacted_in
from dpo_pipeline.preferences.pinned import GoldenSet
from dpo_pipeline.preferences.prompt_index import PromptIndex, sketched
from dpo_pipeline.preferences.schemas import PAIRS
from dpo_pipeline.preferences.spill import Scratch
from dpo_pipeline.preferences.write import PAIRS_FILE

GOLDEN_FILE = "golden_pairs.parquet"
SOURCE = "golden_set"


def read_golden(golden: GoldenSet, *, similarity: float) -> pa.Table:
    """The pairs of a golden set in the schema of `pairs.parquet`, sorted by pair, each once.

    Args:
        golden: Where it lies and what its bytes must be.
        similarity: Similarity from which two prompts share a cluster, the unit of the report's intervals.

    Raises:
        InputError: Naming the first item that is no pair.
    """
    path = golden.checked_path()
    items = [_item(item, number, path) for number, item in enumerate(rows_of(path), start=1)]
    if not items:
        raise InputError(f"the golden set {path} is empty", expected="at least one pair")
    prompts = map_contents(pa.array([item["prompt"] for item in items], MESSAGES), training_text)
    sides = [training_text(pa.array([item[side] for item in items], pa.string())) for side in ("chosen", "rejected")]
    prompt_ids, (chosen, rejected) = prompt_keys(prompts), (text_keys(side) for side in sides)
    is_swapped = response_order(chosen, rejected)[:, None]
    low, high = np.where(is_swapped, rejected, chosen), np.where(is_swapped, chosen, rejected)
    if (same := np.flatnonzero((low == high).all(axis=1))).size:
        raise InputError(f"chosen and rejected of item {same[0] + 1} of {path} are the same", do="Correct the item")
    pair_ids = to_hex(pair_keys(prompt_ids, low, high)).to_pylist()
    first = sorted({pair: at for at, pair in reversed(list(enumerate(pair_ids)))}.values(), key=pair_ids.__getitem__)
    names = to_hex(prompt_ids).to_pylist()
    clusters = _clusters(prompts, names, similarity)
    rows = [
        {
            "pair_id": pair_ids[at],
            "prompt_id": names[at],
            "cluster_id": clusters[at],
            "split": "held_out",
            "prompt": prompts[at].as_py(),
            "chosen": sides[0][at].as_py(),
            "rejected": sides[1][at].as_py(),
            **_judged_by_nobody(golden.name),
            "group_id": names[at],
        }
        for at in first
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def write_golden(out: Path, golden: pa.Table) -> None:
    """Write `golden_pairs.parquet`."""
    write_table(out / GOLDEN_FILE, golden)


def golden_rows(pairs: Path, columns: list[str] | None = None) -> pa.Table:
    """The golden pairs of a preference_pairs artifact folder; none where no set is pinned."""
    path = pairs / GOLDEN_FILE
    if path.exists():
        return pq.read_table(path, columns=columns)
    return PAIRS.empty_table() if columns is None else PAIRS.empty_table().select(columns)


def held_out_rows(pairs: Path, columns: list[str] | None = None) -> pa.Table:
    """What a model is evaluated on: the golden pairs, then the other held-out rows of `pairs.parquet`."""
    wanted = columns if columns is None or "pair_id" in columns else ["pair_id", *columns]
    golden = golden_rows(pairs, wanted)
    rows = pq.read_table(pairs / PAIRS_FILE, columns=wanted, filters=[("split", "=", "held_out")])
    rows = rows.filter(pc.invert(pc.is_in(rows["pair_id"], golden["pair_id"].combine_chunks())))
    together = pa.concat_tables([golden.cast(rows.schema) if golden.num_rows else rows.slice(0, 0), rows])
    return together if columns is None else together.select(columns)


def like_golden(
    prompts: SketchedPrompts, golden: pa.Table, *, similarity: float, redacted: frozenset[str] = frozenset()
) -> np.ndarray:
    """Which prompts of the drops are golden ones or near copies of one, `(M,)` bool.

    Args:
        prompts: The prompts, sketched as they read once redacted.
        golden: The golden pairs, which keep their characters.
        similarity: Jaccard similarity of word 2-grams from which a prompt is a near copy.
        redacted: Rules for personal data whose finds were taken out of the drops' prompts.
    """
    asked = redact_conversations(golden["prompt"].combine_chunks(), rules=redacted)
    near = PromptIndex(asked, similarity=similarity).search(prompts.bands(), prompts.shingles_of)
    own = from_hex(golden["prompt_id"].combine_chunks())
    return near | (np.isin(prompts.ids[:, 0], own[:, 0]) & np.isin(prompts.ids[:, 1], own[:, 1]))


def golden_leaks(pairs: Path, *, similarity: float, trained_in: Path | None = None) -> list[str]:
    """The ids of trained prompts that are near copies of golden ones, found again from the published tables.

    Args:
        pairs: The preference_pairs artifact folder with the golden set.
        similarity: Jaccard similarity of word 2-grams from which a prompt is a near copy.
        trained_in: The folder whose train side is looked through; absent: the same. An older one may hold what today's
            leaves out, where the golden set was pinned since.
    """
    golden = golden_rows(pairs)
    if not golden.num_rows:
        return []
    table, leaks = (trained_in or pairs) / PAIRS_FILE, []
    # Golden pairs keep their characters; they are looked for as the table reads.
    prompts = redact_conversations(golden["prompt"].combine_chunks(), rules=redacted_in(table))
    index = PromptIndex(prompts, similarity=similarity)
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(columns=["prompt_id", "prompt", "split"]):
            train = batch.filter(pc.equal(batch["split"], "train"))
            leaks += train["prompt_id"].filter(pa.array(index.near(train["prompt"]))).to_pylist()
    return sorted(set(leaks))


def _clusters(prompts: pa.ListArray, names: list[str], similarity: float) -> list[str]:
    """The smallest id among the prompts each one is connected with by near copies."""
    sets, keys = sketched(prompts)
    order = np.arange(len(prompts), dtype=np.int32)
    edges = np.concatenate(list(propose(keys, order, len(prompts), Scratch(None))))
    label = components(len(prompts), edges[jaccard(sets, edges) >= similarity])
    smallest: dict[int, str] = {}
    for name, of in zip(names, label.tolist(), strict=True):
        smallest[of] = min(name, smallest.get(of, name))
    return [smallest[of] for of in label.tolist()]


def _judged_by_nobody(name: str) -> dict[str, Any]:
    return {
        "p_chosen": 1.0,
        "margin": 0.0,
        "strength": 0.0,
        "agreement": 1.0,
        "judgment_count": 0,
        "annotator_count": 0,
        "judgment_ids": [],
        "annotators": [],
        "dimensions": [],
        "sources": [SOURCE],
        "drops": [name],
        "flags": [],
        "sft_allowed": False,
    }


def _item(item: object, number: int, path: Path) -> dict[str, Any]:
    """Prompt, chosen and rejected of an item: texts, or conversations as TRL has them."""
    values = item if isinstance(item, Mapping) else {}
    prompt = _turns(values.get("prompt"))
    chosen, rejected = (_reply(values.get(side)) for side in ("chosen", "rejected"))
    if fault := _fault_of(prompt, chosen, rejected):
        raise InputError(
            f"item {number} of {path} is no pair: {fault}",
            expected="`prompt`, `chosen` and `rejected`, each a text or a list of {role, content}, none of them empty; "
            "user and assistant in turn, the user last in the prompt",
            do="Correct the item, and the digest in the profile",
        )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _fault_of(prompt: list[dict[str, str]], chosen: str, rejected: str) -> str:
    """Why these are no pair, a clause; empty where they are one."""
    try:
        check_prompt(tuple((turn["role"], turn["content"].strip()) for turn in prompt))
        "".join([*(turn["content"] for turn in prompt), chosen, rejected]).encode()
    except Unusable as problem:
        return problem.detail
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    return "" if chosen and rejected else "a response is missing or empty"


def _turns(value: object) -> list[dict[str, str]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    turns = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    keys = ("role", "content")
    is_whole = all(isinstance(turn, Mapping) and all(isinstance(turn.get(key), str) for key in keys) for turn in turns)
    return [{key: turn[key] for key in keys} for turn in turns] if is_whole else []


def _reply(value: object) -> str:
    """A text, or the last turn of a conversation where that is the assistant's."""
    if isinstance(value, str):
        return value.strip()
    turns = _turns(value)
    return turns[-1]["content"].strip() if turns and turns[-1]["role"] == "assistant" else ""
