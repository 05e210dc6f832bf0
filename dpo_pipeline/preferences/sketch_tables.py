"""The tables a sketch is made of: their files, their columns, and the numbers that stand for choices in them."""

from enum import IntEnum

import numpy as np
import pyarrow as pa

from dpo_pipeline.core.tables import column, table_schema
from dpo_pipeline.preferences.cleaning import RULES

VERDICTS_FILE, NAMES_FILE = "verdicts.parquet", "names.parquet"
PAIRS_FILE, PROMPTS_FILE, SHINGLES_FILE = "pairs.parquet", "prompts.parquet", "prompt_shingles.bin"
TAUGHT_FILE, TAUGHT_SHINGLES_FILE = "taught_prompts.parquet", "taught_shingles.bin"
"""Prompts of demonstrations; a drop that brings none has no such files."""
PAIR_BANDS, PAIR_HASHES = 16, 80
"""16 bands of 5: a pair of similarity 0.6 is proposed with probability 0.73, 0.7 with 0.95, 0.8 with 0.998."""
PROMPT_BANDS, PROMPT_HASHES = 64, 256
"""64 bands of 4: similarity 0.5 is proposed with probability 0.98, 0.2 with 0.1."""
DIALOGUE = ("user", "assistant")
"""Turns that make prompts alike; a system prompt shared by a whole drop would make all its prompts alike."""
NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is not known."""


class Choice(IntEnum):
    """The verdicts of schema `judgments`, as small numbers."""

    A = 0
    B = 1
    TIE = 2
    BOTH_BAD = 3
    NOT_RATEABLE = 4
    SKIPPED = 5


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
    3,
    [
        column("prompt_id", pa.binary(16), "Identity of the prompt; the table is sorted by it."),
        column("shingles", pa.int32(), f"How many of the numbers in {SHINGLES_FILE} are its hashed word pairs."),
        column("system", pa.uint64(), "Hash of the system turns: near duplicates must share it."),
        column("numbers", pa.uint64(), "Hash of the numbers in it, in order: near duplicates must share them."),
        column("opening", pa.uint64(), "Hash of the first user turn; 0 where it is too short to mean anything."),
        column(
            "draw", pa.uint64(), "Salted hash that decides the side of the split where the prompt founds a cluster."
        ),
        *[column(f"band_{band:02}", pa.uint32(), "MinHash band key; 0: none.") for band in range(PROMPT_BANDS)],
    ],
)
TAUGHT = table_schema(
    "sketch_taught_prompts",
    1,
    [
        column("prompt_id", pa.binary(16), "Identity of a demonstration's prompt; the table is sorted by it."),
        column("shingles", pa.int32(), f"How many of the numbers in {TAUGHT_SHINGLES_FILE} are its hashed word pairs."),
        *[column(f"band_{band:02}", pa.uint32(), "MinHash band key; 0: none.") for band in range(PROMPT_BANDS)],
    ],
)


def salted(salt: str) -> dict[bytes, bytes]:
    """What the file of the prompts says of the draws in it."""
    return {b"split_salt": salt.encode()}


CODED_DIMENSIONS = pa.list_(
    pa.struct([pa.field("name", pa.int32(), nullable=False), pa.field("strength", pa.float32(), nullable=False)])
)
VERDICTS = table_schema(
    "sketch_verdicts",
    1,
    [
        column("pair", pa.int32(), "Place in the sketch's pairs; the table is sorted by it, then by judgment_id."),
        column("judgment_id", pa.binary(16), "Identity of the judgment."),
        column("row", pa.int64(), "Its row in judgments.parquet."),
        column("b_is_low", pa.bool_(), "Whether response_b is the pair's low response (the key that sorts first)."),
        column("choice", pa.int8(), "Number of the choice."),
        column("strength", pa.int8(), "As in judgments."),
        column("votes", pa.int32(), "As in judgments."),
        column("annotator", pa.int32(), "Place among the annotators in names.parquet, -1 for none."),
        column("source", pa.int32(), "Place among the sources in names.parquet."),
        column("file", pa.int32(), "Place among the files in names.parquet."),
        column("record_number", pa.int64(), "As in judgments."),
        column("judged_at", pa.int64(), "Microseconds since 1970; the least number of all where unknown."),
        column("sft_allowed", pa.bool_(), "As in judgments."),
        column("dimensions", CODED_DIMENSIONS, "As in judgments; names are places in names.parquet."),
    ],
)
NAMES = table_schema(
    "sketch_names",
    1,
    [
        column("kind", pa.string(), "annotator, dimension, file or source."),
        column("name", pa.string(), "Sorted within its kind; verdicts.parquet has the places."),
    ],
)
VERDICT_COLUMNS = {field.name: field.type for field in VERDICTS if field.name != "pair"}
