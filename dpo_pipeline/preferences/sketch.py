"""Per drop, once: what every text is called, which pairs it makes, and how to find near duplicates of them.

Normalising and hashing text is the expensive part of building pairs. It is done here, per drop, and never again for
old drops: the build works on these tables. All of them are sorted by identity, so a build only merges those of its
drops. A sketch is made in two halves (`naming` is the first), each in memory that does not grow with the drop.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.cleaning import RULES, PairTexts, find_all
from dpo_pipeline.preferences.identifiers import blake2b_128
from dpo_pipeline.preferences.naming import Named
from dpo_pipeline.preferences.normalize import KEY_VERSION, map_contents, normalise_once_each, once_each, render
from dpo_pipeline.preferences.parallel import in_order
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import SHINGLE_VERSION, Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.sketch_tables import (
    DIALOGUE,
    NAMES,
    NAMES_FILE,
    PAIR_BANDS,
    PAIR_HASHES,
    PAIRS,
    PAIRS_FILE,
    PROMPT_BANDS,
    PROMPT_HASHES,
    PROMPTS,
    PROMPTS_FILE,
    SHINGLES_FILE,
    VERDICTS,
    VERDICTS_FILE,
)
from dpo_pipeline.preferences.training_texts import ROWS_AT_ONCE, cleaned, open_texts

OPENING_WORDS = 6
"""Words a first user turn needs before sharing it puts two prompts on the same side of the split."""
PROMPT_TAG = np.uint32(0x5BD1E995)
"""Keeps a word pair of the prompt apart from the same one in a response."""


def sketch_drop(judgments: Path, out: Path, *, settings: PreferenceSettings, reporter: Reporter) -> Outcome:
    """Name and sketch the pairs and prompts of one drop.

    Law: the order of the judgments changes nothing but the numbers of their rows.

    Args:
        judgments: Folder of the drop's judgments artifact.
        out: Folder to write `pairs.parquet`, `prompts.parquet`, `prompt_shingles.bin`, `texts.parquet`,
            `verdicts.parquet` and `names.parquet` into.
        settings: The cleaning rules' actions (what is redacted is in the texts) and limits.
        reporter: Told how far the drop is.

    Returns:
        Counts of judgments, distinct pairs and distinct prompts, of pairs seen in both orders, and per cleaning rule
        of the pairs it found.
    """
    with Named(judgments, out) as named:
        named.read(reporter)
        prompt_ids = _write_prompts(named, out, reporter)
        counts = _write_pairs(named, prompt_ids, out, settings=settings, reporter=reporter)
    return Outcome(
        counts={"judgments": named.count, "prompts": len(prompt_ids), **counts},
        facts={"key_version": KEY_VERSION, "shingle_version": SHINGLE_VERSION},
    )


def _write_prompts(named: Named, out: Path, reporter: Reporter) -> np.ndarray:
    """Write the sketch of every prompt, a row group per range; return the sorted identities."""
    progress = Progress(reporter, "prompts sketched", named.count)
    ids = [np.zeros((0, 2), np.uint64)]
    with _open(out / PROMPTS_FILE, PROMPTS) as writer, (out / SHINGLES_FILE).open("wb") as file:
        for table in named.asked.ranges():
            keys = identifiers.from_binary(_whole(table, "prompt_id"))
            first = identifiers.first_of_each(keys[:, 0], keys[:, 1])
            prompts = _whole(table, "prompt").take(pa.array(first))
            parts = []
            for numbers, words in in_order(_chunks(prompts), _sketch_prompts):
                file.write(words.tobytes())
                parts.append(numbers)
                progress.add(len(numbers["shingles"]))
            ids.append(keys[first])
            _write_group(writer, PROMPTS, parts, {"prompt_id": keys[first]})
    found = np.concatenate(ids)
    reporter.say(f"sketched {len(found):,} distinct prompts")
    return found


def _sketch_prompts(prompts: pa.ListArray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns of `PROMPTS` for some normalised prompts, and their hashed word pairs end to end."""
    dialogue = render(prompts, roles=DIALOGUE, with_roles=False)
    sets, opening = shingle(dialogue), _first_user_turns(prompts)
    is_long = np.diff(shingle(opening, words=1).bounds) >= OPENING_WORDS
    bands = band_keys(signatures(sets, count=PROMPT_HASHES), bands=PROMPT_BANDS)
    return {
        "shingles": np.diff(sets.bounds),
        "system": _hashes(render(prompts, roles=("system",), with_roles=False)),
        "numbers": _hashes(pc.replace_substring_regex(dialogue, r"\D+", " ")),
        "opening": np.where(is_long, _hashes(opening), np.uint64(0)),
        **{f"band_{band:02}": keys for band, keys in enumerate(bands)},
    }, sets.values


class _Range(NamedTuple):
    """One range of pairs, named: P pairs in the order of their identities, N judgments in that of the pairs.

    Attributes:
        ids: Columns of identities, `(P, 2)` each.
        numbers: What the judgments that stand for the pairs say, `(P,)` each.
        pair: The pair of each judgment, `(N,)` ascending.
        verdicts: The judgments.
        texts: The texts of the pairs as most of their judgments show them.
    """

    ids: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    pair: np.ndarray
    verdicts: pa.Table
    texts: pa.Table


def _write_pairs(
    named: Named, prompt_ids: np.ndarray, out: Path, *, settings: PreferenceSettings, reporter: Reporter
) -> dict[str, int]:
    """Write sketch and texts of every pair, and the verdicts on them; return the counts."""
    names, places = named.names.sorted()
    rows = [(kind, name) for kind in sorted(names) for name in names[kind]]
    write_table(out / NAMES_FILE, pa.table(list(zip(*rows, strict=True)) or [[], []], schema=NAMES))
    counts = {"pairs": 0, "pairs_shown_in_both_orders": 0, **{f"found_by_{rule.name}": 0 for rule in RULES}}
    progress = Progress(reporter, "judgments sketched", named.count)
    with (
        _open(out / PAIRS_FILE, PAIRS) as pairs,
        open_texts(out, settings) as texts,
        pq.ParquetWriter(out / VERDICTS_FILE, VERDICTS, compression="lz4", use_dictionary=False) as verdicts,
    ):
        for some in _ranges(named, places):
            some.numbers["prompt"] = identifiers.places(prompt_ids, some.ids.pop("prompt_id"))
            parts = []
            for numbers, clean in in_order(_chunks(some.texts), lambda chunk: _sketch_pairs(chunk, settings)):
                texts.write_table(clean, row_group_size=ROWS_AT_ONCE)
                parts.append(numbers)
            place = pa.array(counts["pairs"] + some.pair, pa.int32())
            verdicts.write_table(some.verdicts.add_column(0, VERDICTS.field("pair"), place).cast(VERDICTS))
            found = _write_group(pairs, PAIRS, parts, {**some.ids, **some.numbers})
            _count(counts, some, found)
            progress.add(len(some.pair))
    reporter.say(f"sketched {counts['pairs']:,} distinct pairs")
    return counts


def _ranges(named: Named, places: dict[str, np.ndarray]) -> Iterator[_Range]:
    """The named judgments, one range of pairs after another."""
    for judged, spelled in zip(named.judgments.ranges(), named.spelled.ranges(), strict=True):
        keys = {name: identifiers.from_binary(_whole(judged, name)) for name in IDS}
        spelling = _whole(judged, "spelling").to_numpy()
        judgment = identifiers.from_binary(_whole(judged, "judgment_id"))
        stands, pair = _representatives(keys["pair_id"], spelling, judgment)
        ids = {name: values[stands] for name, values in keys.items()}
        order = np.lexsort((judgment[:, 1], judgment[:, 0], pair))
        verdicts = judged.select(VERDICTS.names[1:]).combine_chunks().take(pa.array(order))
        for kind, code in places.items():
            if kind in verdicts.schema.names:
                at = verdicts.schema.get_field_index(kind)
                verdicts = verdicts.set_column(at, kind, pa.array(code[verdicts.column(kind).to_numpy()]))
        numbers = {name: _whole(judged, name).to_numpy(zero_copy_only=False)[stands] for name in ("row", "b_is_low")}
        yield _Range(ids, numbers, pair[order], verdicts, _spelled(spelled, ids["pair_id"], spelling[stands]))


IDS = ("pair_id", "prompt_id", "low_id", "high_id")


def _representatives(keys: np.ndarray, spelling: np.ndarray, judgment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The judgment that stands for each distinct key, sorted by key, and the place of every judgment's key.

    It shows the spelling most judgments show; among equals the choice depends on contents only, never on order.
    """
    _, _, place = identifiers.unique(keys)
    order = np.lexsort((judgment[:, 1], judgment[:, 0], spelling, place))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (place[order][1:] != place[order][:-1]) | (spelling[order][1:] != spelling[order][:-1])
    starts = np.flatnonzero(is_new)
    sizes = np.diff(np.append(starts, len(order)))
    first = order[starts]
    best = np.lexsort((spelling[first], -sizes, place[first]))
    is_best = np.ones(len(best), bool)
    is_best[1:] = place[first[best]][1:] != place[first[best]][:-1]
    return first[best[is_best]], place


def _spelled(spelled: pa.Table, pair_ids: np.ndarray, spelling: np.ndarray) -> pa.Table:
    """The texts of the pairs, sorted and distinct, each in the given spelling."""
    pair = identifiers.places(pair_ids, identifiers.from_binary(_whole(spelled, "pair_id")))
    rows = np.flatnonzero(_whole(spelled, "spelling").to_numpy() == spelling[pair])
    first = rows[np.unique(pair[rows], return_index=True)[1]]
    return spelled.select(["prompt", "low", "high"]).combine_chunks().take(pa.array(first))


def _sketch_pairs(texts: pa.Table, settings: PreferenceSettings) -> tuple[dict[str, np.ndarray], pa.Table]:
    """The numbers of `PAIRS` that texts give, and the texts as they may be trained on."""
    raw_prompt, raw_low, raw_high = (texts.column(name).combine_chunks() for name in ("prompt", "low", "high"))
    low, high = normalise_once_each(raw_low), normalise_once_each(raw_high)
    prompt = map_contents(raw_prompt, normalise_once_each)
    return {
        "low_characters": pc.utf8_length(low).to_numpy(),
        "high_characters": pc.utf8_length(high).to_numpy(),
        "prompt_characters": pc.utf8_length(render(prompt, with_roles=False)).to_numpy(),
        **{
            f"rule_{name}": hits
            for name, hits in find_all(PairTexts.of(raw_prompt, raw_low, raw_high, prompt, low, high), settings).items()
        },
        **{f"band_{band:02}": keys for band, keys in enumerate(_pair_bands(prompt, low, high))},
    }, cleaned(texts, settings)


def _pair_bands(prompt: pa.ListArray, low: pa.StringArray, high: pa.StringArray) -> np.ndarray:
    """The band keys of whole pairs, `(bands, N)`: the same whichever response is called low."""
    dialogue = shingle(render(prompt, roles=DIALOGUE, with_roles=False))
    signature = signatures(Shingles(dialogue.values ^ PROMPT_TAG, dialogue.bounds), count=PAIR_HASHES)
    for response in (low, high):
        np.minimum(signature, signatures(shingle(response), count=PAIR_HASHES), out=signature)
    return band_keys(signature, bands=PAIR_BANDS)


def _count(counts: dict[str, int], some: _Range, found: pa.Table) -> None:
    b_is_low, size = _whole(some.verdicts, "b_is_low").to_numpy(zero_copy_only=False), len(found)
    shown = [np.bincount(some.pair[b_is_low == side], minlength=size) > 0 for side in (False, True)]
    counts["pairs"] += size
    counts["pairs_shown_in_both_orders"] += int((shown[0] & shown[1]).sum())
    for rule in RULES:
        counts[f"found_by_{rule.name}"] += pc.sum(found.column(f"rule_{rule.name}")).as_py() or 0


def _hashes(texts: pa.StringArray) -> np.ndarray:
    """A 64-bit hash of each text, `(N,)`; most system prompts are one and the same."""
    return once_each(texts, lambda some: blake2b_128(some)[:, 0])


def _first_user_turns(prompts: pa.ListArray) -> pa.StringArray:
    """The first user turn of each conversation, empty where there is none."""
    turns = prompts.flatten()
    is_user = pc.equal(turns.field("role"), "user").to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(prompts).to_numpy()[is_user]
    first = np.ones(len(parents), bool)
    first[1:] = parents[1:] != parents[:-1]
    content = turns.field("content").filter(pa.array(is_user)).filter(pa.array(first))
    has_user = np.zeros(len(prompts), bool)
    has_user[parents] = True
    return pc.replace_with_mask(pa.array([""] * len(prompts), pa.string()), pa.array(has_user), content)


def _whole(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks()


def _chunks(rows: pa.Array | pa.Table) -> Iterator[pa.Array | pa.Table]:
    """Pieces of a row group's size; what is worked on at a time."""
    return (rows.slice(start, ROWS_AT_ONCE) for start in range(0, len(rows), ROWS_AT_ONCE))


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Hashes are all different: looking for repeats and compressing them would only cost time.
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)


def _write_group(
    writer: pq.ParquetWriter, schema: pa.Schema, parts: list[dict[str, np.ndarray]], known: dict[str, np.ndarray]
) -> pa.Table:
    """Write a row group of columns known whole and columns made in parts; return it."""
    columns = []
    for field in schema:
        values = (
            known[field.name] if field.name in known else np.concatenate([part[field.name] for part in parts] or [[]])
        )
        columns.append(identifiers.to_binary(values) if field.name.endswith("_id") else pa.array(values, field.type))
    table = pa.Table.from_arrays(columns, schema=schema)
    writer.write_table(table, row_group_size=max(len(table), 1))
    return table
