"""Per drop, once: what every text is called, which pairs it makes, and how to find near duplicates of them.

Normalising and hashing text is the expensive part of building pairs. It is done here, per drop, and never again for
old drops: the build works on these tables. All of them are sorted by identity, so a build only merges those of its
drops. A sketch is made in two halves (`naming` is the first), each in memory that does not grow with the drop.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.cleaning import RULES, PairTexts, find_all, prepare, timing
from dpo_pipeline.preferences.contamination import OverlapsOfDrop
from dpo_pipeline.preferences.identifiers import blake2b_128
from dpo_pipeline.preferences.naming import Named, NamedRange, whole
from dpo_pipeline.preferences.normalize import KEY_VERSION, map_contents, normalise_once_each, once_each, render
from dpo_pipeline.preferences.parallel import in_order
from dpo_pipeline.preferences.personal_data import as_redacted, redacted_by
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
    TAUGHT,
    TAUGHT_FILE,
    TAUGHT_SHINGLES_FILE,
    VERDICTS,
    VERDICTS_FILE,
    salted,
)
from dpo_pipeline.preferences.spill import Scratch, Spill
from dpo_pipeline.preferences.split import draws_of
from dpo_pipeline.preferences.taught import asked_in_demonstrations
from dpo_pipeline.preferences.training_texts import ROWS_AT_ONCE, cleaned, open_texts

OPENING_WORDS = 6
"""Words a first user turn needs before sharing it puts two prompts on the same side of the split."""
PROMPT_TAG = np.uint32(0x5BD1E995)
"""Keeps a word pair of the prompt apart from the same one in a response."""


def sketch_drop(
    judgments: Path,
    out: Path,
    *,
    settings: PreferenceSettings,
    reporter: Reporter,
    demonstrations: Path | None = None,
) -> Outcome:
    """Name and sketch the pairs and prompts of one drop.

    Law: the order of the judgments changes nothing but the numbers of their rows.

    Args:
        judgments: Folder of the drop's judgments artifact.
        out: Folder to write `pairs.parquet`, `prompts.parquet`, `prompt_shingles.bin`, `texts.parquet`,
            `verdicts.parquet` and `names.parquet` into; `taught_prompts.parquet` and `taught_shingles.bin` where the
            drop has demonstrations.
        settings: The cleaning rules' actions (what is redacted is in the texts) and limits.
        reporter: Told how far the drop is.
        demonstrations: Folder of the drop's demonstrations artifact; absent: it has none.

    Returns:
        Counts of judgments, distinct pairs and distinct prompts, of pairs seen in both orders, and per cleaning rule
        of the pairs it found.
    """
    for sentence in prepare(settings):
        reporter.say(sentence)
    with Named(judgments, out) as named:
        named.read(reporter)
        prompt_ids = _write_asked(named, out, settings, reporter)
        counts = _write_pairs(named, prompt_ids, out, settings=settings, reporter=reporter)
    taught = _write_taught(demonstrations, out, settings, reporter) if demonstrations else {}
    return Outcome(
        counts={"judgments": named.count, "prompts": len(prompt_ids), **counts, **taught},
        facts={"key_version": KEY_VERSION, "shingle_version": SHINGLE_VERSION},
    )


def _write_asked(named: Named, out: Path, settings: PreferenceSettings, reporter: Reporter) -> np.ndarray:
    """Write the sketch of every prompt of a pair; return the sorted identities, `(M, 2)`."""
    salt = settings.split_salt
    progress = Progress(reporter, "prompts sketched", named.count)
    found, count = Scratch(out).empty((2, named.count), np.uint64).T, 0
    schema = PROMPTS.with_metadata({**PROMPTS.metadata, **salted(salt)})
    with _open(out / PROMPTS_FILE, schema) as writer, (out / SHINGLES_FILE).open("wb") as file:
        for keys, parts in _sketched_ranges(named.asked, file, settings, progress):
            found[count : count + len(keys)] = keys
            count += len(keys)
            _write_group(writer, PROMPTS, parts, {"prompt_id": keys, "draw": draws_of(keys, salt)})
    reporter.say(f"sketched {count:,} distinct prompts")
    return found[:count]


def _write_taught(demonstrations: Path, out: Path, settings: PreferenceSettings, reporter: Reporter) -> dict[str, int]:
    """Write the sketch of every prompt of a demonstration, if there is any; return the counts."""
    with asked_in_demonstrations(demonstrations, out) as asked:
        if asked is None:
            return {}
        count = 0
        progress = Progress(reporter, "prompts of demonstrations sketched", asked.rows)
        with _open(out / TAUGHT_FILE, TAUGHT) as writer, (out / TAUGHT_SHINGLES_FILE).open("wb") as file:
            for keys, parts in _sketched_ranges(asked.prompts, file, settings, progress):
                count += len(keys)
                _write_group(writer, TAUGHT, parts, {"prompt_id": keys})
    reporter.say(f"sketched {count:,} distinct prompts of {asked.rows:,} demonstrations")
    return {"demonstrations": asked.rows, "prompts_of_demonstrations": count}


def _sketched_ranges(
    asked: Spill, file: BinaryIO, settings: PreferenceSettings, progress: Progress
) -> Iterator[tuple[np.ndarray, list[dict[str, np.ndarray]]]]:
    """Per range of identities the distinct ones, sorted, and what `_sketch_prompts` says of them.

    Their word pairs are written to the file.
    """
    rules = redacted_by(settings)
    for table in asked.ranges():
        keys = identifiers.from_binary(whole(table, "prompt_id"))
        first = identifiers.first_of_each(keys[:, 0], keys[:, 1])
        prompts = whole(table, "prompt").take(pa.array(first))
        parts = []
        for numbers, words in in_order(_chunks(prompts), lambda chunk: _sketch_prompts(chunk, rules)):
            file.write(words.tobytes())
            parts.append(numbers)
            progress.add(len(numbers["shingles"]))
        yield keys[first], parts


def _sketch_prompts(prompts: pa.ListArray, rules: frozenset[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns of `PROMPTS` for some normalised prompts, and their hashed word pairs end to end.

    All is that of the texts without what the rules redact: prompts that differ in an address are one there.
    """
    prompts = map_contents(prompts, lambda some: as_redacted(some, rules=rules))
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


def _write_pairs(
    named: Named, prompt_ids: np.ndarray, out: Path, *, settings: PreferenceSettings, reporter: Reporter
) -> dict[str, int]:
    """Write sketch and texts of every pair, and the verdicts on them; return the counts."""
    names, places = named.names.sorted()
    rows = [(kind, name) for kind in sorted(names) for name in names[kind]]
    write_table(out / NAMES_FILE, pa.table(list(zip(*rows, strict=True)) or [[], []], schema=NAMES))
    counts = {"pairs": 0, "pairs_shown_in_both_orders": 0, **{f"found_by_{rule.name}": 0 for rule in RULES}}
    progress = Progress(reporter, "judgments sketched", named.count)
    overlaps, seconds = OverlapsOfDrop(settings), list[tuple[str, float]]()
    with (
        _open(out / PAIRS_FILE, PAIRS) as pairs,
        open_texts(out, settings) as texts,
        pq.ParquetWriter(out / VERDICTS_FILE, VERDICTS, compression="lz4", use_dictionary=False) as verdicts,
    ):
        for some in named.ranges(places):
            some.numbers["prompt"] = identifiers.places(prompt_ids, some.ids.pop("prompt_id"))
            parts = []
            for numbers, clean, user_turns in in_order(
                _chunks(some.texts), lambda chunk: _sketch_pairs(chunk, settings, seconds)
            ):
                texts.write_table(clean, row_group_size=ROWS_AT_ONCE)
                start = sum(len(part["low_characters"]) for part in parts)
                ids = some.ids["pair_id"][start : start + len(clean)]
                overlaps.put(ids, user_turns, numbers["rule_benchmark_overlap"])
                parts.append(numbers)
            place = pa.array(counts["pairs"] + some.pair, pa.int32())
            verdicts.write_table(some.verdicts.add_column(0, VERDICTS.field("pair"), place).cast(VERDICTS))
            found = _write_group(pairs, PAIRS, parts, {**some.ids, **some.numbers})
            _count(counts, some, found)
            progress.add(len(some.pair))
    overlaps.write(out)
    reporter.say(f"sketched {counts['pairs']:,} distinct pairs; {timing(seconds, counts['pairs'])}")
    return counts


def _sketch_pairs(
    texts: pa.Table, settings: PreferenceSettings, seconds: list[tuple[str, float]]
) -> tuple[dict[str, np.ndarray], pa.Table, pa.StringArray]:
    """The numbers of `PAIRS` that texts give, the texts as they may be trained on, and the user turns normalised."""
    raw_prompt, raw_low, raw_high = (texts.column(name).combine_chunks() for name in ("prompt", "low", "high"))
    low, high = normalise_once_each(raw_low), normalise_once_each(raw_high)
    prompt = map_contents(raw_prompt, normalise_once_each)
    pairs, rules = PairTexts.of(raw_prompt, raw_low, raw_high, prompt, low, high), redacted_by(settings)
    # What is published equal is compared equal: near copies are those of the texts as they read once redacted.
    bands = _pair_bands(
        map_contents(prompt, lambda some: as_redacted(some, rules=rules)),
        *(as_redacted(some, rules=rules) for some in (low, high)),
    )
    numbers = {
        "low_characters": pc.utf8_length(low).to_numpy(),
        "high_characters": pc.utf8_length(high).to_numpy(),
        "prompt_characters": pc.utf8_length(render(prompt, with_roles=False)).to_numpy(),
        **{f"rule_{name}": hits for name, hits in find_all(pairs, settings, seconds=seconds).items()},
        **{f"band_{band:02}": keys for band, keys in enumerate(bands)},
    }
    return numbers, cleaned(texts, settings), pairs.user_key


def _pair_bands(prompt: pa.ListArray, low: pa.StringArray, high: pa.StringArray) -> np.ndarray:
    """The band keys of whole pairs, `(bands, N)`: the same whichever response is called low."""
    dialogue = shingle(render(prompt, roles=DIALOGUE, with_roles=False))
    signature = signatures(Shingles(dialogue.values ^ PROMPT_TAG, dialogue.bounds), count=PAIR_HASHES)
    for response in (low, high):
        np.minimum(signature, signatures(shingle(response), count=PAIR_HASHES), out=signature)
    return band_keys(signature, bands=PAIR_BANDS)


def _count(counts: dict[str, int], some: NamedRange, found: pa.Table) -> None:
    b_is_low, size = whole(some.verdicts, "b_is_low").to_numpy(zero_copy_only=False), len(found)
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
