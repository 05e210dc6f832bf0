"""Per drop, once: what every text is called, which pairs it makes, and how to find near duplicates of them.

Normalising and hashing text is the expensive part of building pairs. It is done here, per drop, and never again for
old drops: the build works on these tables, reads judgments' texts only to verify candidates, and copies the cleaned
texts in the order they lie here.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import column, table_schema, write_table
from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.cleaning import RULES, PairTexts, find_all, prepare, timing
from dpo_pipeline.preferences.contamination import OverlapsOfDrop
from dpo_pipeline.preferences.identifiers import blake2b_128, utf8_bytes
from dpo_pipeline.preferences.normalize import (
    KEY_VERSION,
    map_contents,
    normalise_once_each,
    once_each,
    pair_keys,
    prompt_keys,
    render,
    response_order,
    text_keys,
)
from dpo_pipeline.preferences.parallel import for_each
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import SHINGLE_VERSION, Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.texts import JUDGMENTS_FILE, Texts, read_texts
from dpo_pipeline.preferences.training_texts import sorted_texts

ROWS_FILE, PAIRS_FILE, PROMPTS_FILE = "rows.parquet", "pairs.parquet", "prompts.parquet"
PAIR_BANDS, PAIR_HASHES = 16, 80
"""16 bands of 5: a pair of similarity 0.6 is proposed with probability 0.73, 0.7 with 0.95, 0.8 with 0.998."""
PROMPT_BANDS, PROMPT_HASHES = 64, 256
"""64 bands of 4: similarity 0.5 is proposed with probability 0.98, 0.2 with 0.1."""
DIALOGUE = ("user", "assistant")
"""Turns that make prompts alike; a system prompt shared by a whole drop would make all its prompts alike."""
OPENING_WORDS = 6
"""Words a first user turn needs before sharing it puts two prompts on the same side of the split."""
PROMPT_TAG = np.uint32(0x5BD1E995)
"""Keeps a word pair of the prompt apart from the same one in a response."""

ROWS = table_schema(
    "sketch_rows",
    1,
    [
        column("pair", pa.int32(), "Place in the sketch's pairs of the pair the judgment is about."),
        column("b_is_low", pa.bool_(), "Whether response_b is the pair's low response (the key that sorts first)."),
    ],
)
PAIRS = table_schema(
    "sketch_pairs",
    3,
    [
        column("pair_id", pa.binary(16), "Identity of the pair; the table is sorted by it."),
        column("prompt", pa.int32(), "Place in the sketch's prompts."),
        column("low_id", pa.binary(16), "Identity of the low response."),
        column("high_id", pa.binary(16), "Identity of the high response."),
        column("row", pa.int64(), "Row of judgments.parquet whose texts stand for the pair."),
        column("b_is_low", pa.bool_(), "Whether response_b of that row is the low response."),
        column("low_characters", pa.int32(), "Length of the low response."),
        column("high_characters", pa.int32(), "Length of the high response."),
        column("prompt_characters", pa.int32(), "Length of the prompt, all turns."),
        *[column(f"rule_{rule.name}", pa.bool_(), f"Whether {rule.name} v{rule.version} found it.") for rule in RULES],
        *[column(f"band_{band:02}", pa.uint32(), "MinHash band key; 0: none.") for band in range(PAIR_BANDS)],
    ],
)
PROMPTS = table_schema(
    "sketch_prompts",
    1,
    [
        column("prompt_id", pa.binary(16), "Identity of the prompt; the table is sorted by it."),
        column("row", pa.int64(), "Row of judgments.parquet whose prompt it is."),
        column("system", pa.uint64(), "Hash of the system turns: near duplicates must share it."),
        column("numbers", pa.uint64(), "Hash of the numbers in it, in order: near duplicates must share them."),
        column("opening", pa.uint64(), "Hash of the first user turn; 0 where it is too short to mean anything."),
        *[column(f"band_{band:02}", pa.uint32(), "MinHash band key; 0: none.") for band in range(PROMPT_BANDS)],
    ],
)


def sketch_drop(judgments: Path, out: Path, *, settings: PreferenceSettings, reporter: Reporter) -> Outcome:
    """Name and sketch the pairs and prompts of one drop.

    Args:
        judgments: Folder of the drop's judgments artifact.
        out: Folder to write `rows.parquet`, `pairs.parquet`, `prompts.parquet` and `texts.parquet` into.
        settings: The cleaning rules' actions (what is redacted is in the texts) and limits.
        reporter: Told how far the drop is.

    Returns:
        Counts of judgments, distinct pairs and distinct prompts, of pairs seen in both orders, and per cleaning rule
        of the pairs it found.
    """
    for sentence in prepare(settings):
        reporter.say(sentence)
    keys = _Keys.read(judgments, reporter)
    pair_ids, pair_rows, pair_of_row = _representatives(keys.pair, keys.variant, keys.judgment)
    prompt_ids, prompt_rows, prompt_of_row = _representatives(keys.prompt, keys.prompt_variant, keys.judgment)
    write_table(
        out / ROWS_FILE,
        pa.Table.from_arrays([pa.array(pair_of_row), pa.array(keys.b_is_low)], schema=ROWS),
    )
    ids = {"pair_id": pair_ids, "low_id": keys.low[pair_rows], "high_id": keys.high[pair_rows]}
    numbers = {"prompt": prompt_of_row[pair_rows], "row": pair_rows, "b_is_low": keys.b_is_low[pair_rows]}
    both = np.bincount(pair_of_row[keys.b_is_low], minlength=len(pair_ids)) > 0
    both &= np.bincount(pair_of_row[~keys.b_is_low], minlength=len(pair_ids)) > 0
    del keys
    found = _write_pairs(judgments, out, ids, numbers, settings=settings, reporter=reporter)
    _write_prompts(judgments, out, prompt_ids, prompt_rows, reporter)
    return Outcome(
        counts={
            "judgments": len(pair_of_row),
            "pairs": len(pair_ids),
            "prompts": len(prompt_ids),
            "pairs_shown_in_both_orders": int(both.sum()),
            **{f"found_by_{name}": count for name, count in found.items()},
        },
        facts={"key_version": KEY_VERSION, "shingle_version": SHINGLE_VERSION},
    )


class _Keys:
    """The keys of every judgment of a drop, in the order of the table."""

    def __init__(self, count: int) -> None:
        self.pair = np.empty((count, 2), np.uint64)
        self.prompt = np.empty((count, 2), np.uint64)
        self.judgment = np.empty((count, 2), np.uint64)
        self.low, self.high = np.empty((count, 2), np.uint64), np.empty((count, 2), np.uint64)
        self.variant = np.empty(count, np.uint64)
        self.prompt_variant = np.empty(count, np.uint64)
        self.b_is_low = np.empty(count, bool)

    @classmethod
    def read(cls, judgments: Path, reporter: Reporter) -> "_Keys":
        """The keys of the drop's judgments, batch by batch."""
        with pq.ParquetFile(judgments / JUDGMENTS_FILE) as file:
            count = file.metadata.num_rows
        keys = cls(count)
        reporter.say(f"naming {count:,} judgments")
        for_each(read_texts(judgments, np.arange(count)), keys._take)
        ids = pq.read_table(judgments / JUDGMENTS_FILE, columns=["judgment_id"]).column(0)
        if count:
            keys.judgment = np.concatenate([identifiers.from_hex(chunk) for chunk in ids.chunks])
        return keys

    def _take(self, texts: Texts) -> None:
        a, b = text_keys(texts.response_a), text_keys(texts.response_b)
        prompt = prompt_keys(texts.prompt)
        b_is_low = response_order(a, b)
        low, high = np.where(b_is_low[:, None], b, a), np.where(b_is_low[:, None], a, b)
        raw_prompt = _checksums(render(texts.prompt))
        raw_a, raw_b = _checksums(texts.response_a), _checksums(texts.response_b)
        at = texts.place
        self.pair[at], self.low[at], self.high[at] = pair_keys(prompt, low, high), low, high
        self.prompt[at], self.prompt_variant[at], self.b_is_low[at] = prompt, raw_prompt, b_is_low
        # The raw spellings of one pair, whichever response stood first; only ever compared within a pair.
        mix = np.uint64(0x9E3779B97F4A7C15)
        first, second = np.where(b_is_low, raw_b, raw_a), np.where(b_is_low, raw_a, raw_b)
        self.variant[at] = ((raw_prompt * mix) ^ first) * mix ^ second


def _checksums(texts: pa.StringArray) -> np.ndarray:
    """A checksum of each raw text, `(N,)` uint64: tells the spellings of one text apart, nothing more."""
    data, offsets = utf8_bytes(texts)
    blob, bounds, crc = data.data, offsets.tolist(), zlib.crc32
    return np.array([crc(blob[start:end]) for start, end in pairwise(bounds)], np.uint64)


def _representatives(
    keys: np.ndarray, variant: np.ndarray, judgment: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct keys, the row that stands for each, and the place of every row's key among them.

    The row shows the spelling most judgments show; among equals the choice depends on contents only, never on order.
    """
    distinct, _, place = identifiers.unique(keys)
    order = np.lexsort((judgment[:, 1], judgment[:, 0], variant, place))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (place[order][1:] != place[order][:-1]) | (variant[order][1:] != variant[order][:-1])
    starts = np.flatnonzero(is_new)
    sizes = np.diff(np.append(starts, len(order)))
    first = order[starts]
    best = np.lexsort((variant[first], -sizes, place[first]))
    is_best = np.ones(len(best), bool)
    is_best[1:] = place[first[best]][1:] != place[first[best]][:-1]
    return distinct, first[best[is_best]].astype(np.int64), place


def _write_pairs(
    judgments: Path,
    out: Path,
    ids: dict[str, np.ndarray],
    numbers: dict[str, np.ndarray],
    *,
    settings: PreferenceSettings,
    reporter: Reporter,
) -> dict[str, int]:
    """Write sketch and texts of every pair, of which some columns are known; return how many pairs each rule found."""
    rows, b_is_low = numbers["row"], numbers["b_is_low"]
    empty = (field for field in PAIRS if field.name not in IDS and field.name not in numbers)
    numbers |= {field.name: np.zeros(len(rows), field.type.to_pandas_dtype()) for field in empty}

    overlaps, seconds = OverlapsOfDrop(settings), list[tuple[str, float]]()

    def sketch(texts: Texts) -> None:
        at = texts.place
        swap = pa.array(b_is_low[at])
        raw_low = pc.if_else(swap, texts.response_b, texts.response_a)
        raw_high = pc.if_else(swap, texts.response_a, texts.response_b)
        sorter.put(at, texts.prompt, raw_low, raw_high)
        low, high = normalise_once_each(raw_low), normalise_once_each(raw_high)
        prompt = map_contents(texts.prompt, normalise_once_each)
        numbers["low_characters"][at] = pc.utf8_length(low)
        numbers["high_characters"][at] = pc.utf8_length(high)
        numbers["prompt_characters"][at] = pc.utf8_length(render(prompt, with_roles=False))
        pairs = PairTexts.of(texts.prompt, raw_low, raw_high, prompt, low, high)
        found = find_all(pairs, settings, seconds=seconds)
        for name, hits in found.items():
            numbers[f"rule_{name}"][at] = hits
        overlaps.put(at, pairs.user_key, found["benchmark_overlap"])
        for band, keys in enumerate(_pair_bands(prompt, low, high)):
            numbers[f"band_{band:02}"][at] = keys

    with sorted_texts(out, len(rows), settings) as sorter:
        for_each(read_texts(judgments, rows), sketch)
    _write(out / PAIRS_FILE, PAIRS, ids, numbers)
    overlaps.write(out, ids["pair_id"])
    reporter.say(f"sketched {len(rows):,} distinct pairs; {timing(seconds, len(rows))}")
    return {rule.name: int(numbers[f"rule_{rule.name}"].sum()) for rule in RULES}


def _pair_bands(prompt: pa.ListArray, low: pa.StringArray, high: pa.StringArray) -> np.ndarray:
    """The band keys of whole pairs, `(bands, N)`: the same whichever response is called low."""
    dialogue = shingle(render(prompt, roles=DIALOGUE, with_roles=False))
    signature = signatures(Shingles(dialogue.values ^ PROMPT_TAG, dialogue.bounds), count=PAIR_HASHES)
    for response in (low, high):
        np.minimum(signature, signatures(shingle(response), count=PAIR_HASHES), out=signature)
    return band_keys(signature, bands=PAIR_BANDS)


IDS = ("pair_id", "low_id", "high_id", "prompt_id")


def _write_prompts(judgments: Path, out: Path, prompt_ids: np.ndarray, rows: np.ndarray, reporter: Reporter) -> None:
    count = len(prompt_ids)
    numbers = {field.name: np.zeros(count, field.type.to_pandas_dtype()) for field in PROMPTS if field.name not in IDS}

    def sketch(texts: Texts) -> None:
        at = texts.place
        prompt = map_contents(texts.prompt, normalise_once_each)
        dialogue = render(prompt, roles=DIALOGUE, with_roles=False)
        numbers["numbers"][at] = _hashes(pc.replace_substring_regex(dialogue, r"\D+", " "))
        signature = signatures(shingle(dialogue), count=PROMPT_HASHES)
        for band, keys in enumerate(band_keys(signature, bands=PROMPT_BANDS)):
            numbers[f"band_{band:02}"][at] = keys
        numbers["system"][at] = _hashes(render(prompt, roles=("system",), with_roles=False))
        opening = _first_user_turns(prompt)
        words = shingle(opening, words=1)
        numbers["opening"][at] = np.where(np.diff(words.bounds) >= OPENING_WORDS, _hashes(opening), 0)

    for_each(read_texts(judgments, rows, columns=("prompt",)), sketch)
    numbers["row"] = rows
    _write(out / PROMPTS_FILE, PROMPTS, {"prompt_id": prompt_ids}, numbers)
    reporter.say(f"sketched {count:,} distinct prompts")


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


def _write(path: Path, schema: pa.Schema, ids: dict[str, np.ndarray], numbers: dict[str, np.ndarray]) -> None:
    columns = [
        identifiers.to_binary(ids[field.name]) if field.name in ids else pa.array(numbers[field.name], field.type)
        for field in schema
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    # Hashes are all different: looking for repeats and compressing them would only cost time.
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=200_000)
