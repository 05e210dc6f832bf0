"""The preference tables: pairs to train on, pairs left out with their reason, the split of every prompt."""

import pyarrow as pa

from dpo_pipeline.core.tables import MESSAGES, column, table_schema

DIMENSION_MEANS = pa.list_(
    pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("strength", pa.float32(), nullable=False)])
)

PAIRS = table_schema(
    "preference_pairs",
    2,
    [
        column(
            "pair_id",
            pa.string(),
            "blake2b-128 of the normalised prompt and both responses, order-free; hex.",
        ),
        column("prompt_id", pa.string(), "blake2b-128 of the normalised prompt; hex."),
        column("cluster_id", pa.string(), "Smallest prompt_id among near-duplicate prompts; the unit of the split."),
        column("split", pa.string(), "train or held_out."),
        column("prompt", MESSAGES, "The conversation up to and including the last user turn."),
        column("chosen", pa.string(), "The response the annotators prefer."),
        column("rejected", pa.string(), "The other response."),
        column(
            "p_chosen",
            pa.float32(),
            "Estimated probability that chosen is the better one, above 0.5 and up to 1.",
        ),
        column("margin", pa.float32(), "Mean strength of the judgments toward chosen, 0..3 (ties count as 0)."),
        column(
            "strength",
            pa.float32(),
            "Mean strength of the judgments, whichever side they took, 0..3; above margin where they disagree.",
        ),
        column("agreement", pa.float32(), "Share of the non-tie votes that prefer chosen."),
        column("judgment_count", pa.int32(), "Judgments counted, an annotator's repeated verdict once."),
        column("annotator_count", pa.int32(), "Distinct known annotators among them."),
        column("judgment_ids", pa.list_(pa.string()), "The judgments counted, sorted."),
        column("annotators", pa.list_(pa.string()), "Their annotators' pseudonyms, sorted, without nulls."),
        column("dimensions", DIMENSION_MEANS, "Mean strength toward chosen per rubric dimension."),
        column("sources", pa.list_(pa.string()), "Export formats the judgments came from, sorted."),
        column("drops", pa.list_(pa.string()), "Drops the judgments came with, sorted."),
        column("group_id", pa.string(), "prompt_id of the ranking the pair belongs to; a group shares a prompt."),
        column("flags", pa.list_(pa.string()), "Cleaning rules that flagged the pair without removing it, sorted."),
        column("sft_allowed", pa.bool_(), "Whether every source permits the chosen response as an SFT demonstration."),
    ],
)

EXCLUDED_PAIRS = table_schema(
    "excluded_pairs",
    1,
    [
        column("pair_id", pa.string(), "As in preference_pairs."),
        column("prompt_id", pa.string(), "As in preference_pairs."),
        column("reason", pa.string(), "Reason code: tie, contradiction, near_duplicate, ..."),
        column("detail", pa.string(), "What was found, in one sentence."),
        column("winner_pair_id", pa.string(), "For duplicates: the pair that was kept.", nullable=True),
        column("judgment_ids", pa.list_(pa.string()), "The judgments of the pair, sorted."),
        column("annotators", pa.list_(pa.string()), "Their annotators' pseudonyms, sorted."),
    ],
)

SPLITS = table_schema(
    "splits",
    3,
    [
        column("prompt_id", pa.string(), "As in preference_pairs."),
        column("cluster_id", pa.string(), "As in preference_pairs."),
        column("split", pa.string(), "train, held_out or quarantined (touches both sides)."),
        column(
            "is_apart",
            pa.bool_(),
            "Quarantined by itself, not with its cluster: a near copy of a prompt on the other side, in a crowd of "
            "prompts that resemble each other; or, in a held-out cluster, like a demonstration of an earlier drop.",
        ),
        column(
            "is_like_demonstration",
            pa.bool_(),
            "Whether it is one, or like one, that an earlier drop brought as a demonstration and no split kept out of "
            "training: a model may have learned it before it came, so it is not held out.",
        ),
        column("first_drop", pa.string(), "The drop in which the prompt first appeared."),
    ],
)

BENCHMARK_OVERLAPS = table_schema(
    "benchmark_overlaps",
    1,
    [
        column("pair_id", pa.string(), "As in preference_pairs and excluded_pairs."),
        column("benchmark", pa.string(), "Name of the benchmark."),
        column("benchmark_sha256", pa.string(), "SHA-256 of its file."),
        column("item", pa.int64(), "Number of the item in the file, from 1."),
    ],
)

ANNOTATORS = table_schema(
    "annotators",
    2,
    [
        column("annotator", pa.string(), "Keyed pseudonym."),
        column("judgments", pa.int64(), "Judgments given."),
        column("counted", pa.int64(), "Judgments that count: verdicts, the last one on each pair."),
        column("repeated", pa.int64(), "Earlier verdicts on a pair judged again."),
        column(
            "repeated_same_share",
            pa.float64(),
            "Share of those that say the same as the last one.",
            nullable=True,
        ),
        column("skipped", pa.int64(), "Pairs skipped or called not rateable."),
        column("tie_share", pa.float64(), "Share of counted verdicts that prefer neither response.", nullable=True),
        column("comparable", pa.int64(), "Verdicts on pairs where the others together prefer a side."),
        column("agreement", pa.float64(), "Share of those that prefer the others' side.", nullable=True),
        column("agreement_low", pa.float64(), "Lower end of its 95 % Wilson interval."),
        column("agreement_high", pa.float64(), "Upper end of its 95 % Wilson interval."),
        column(
            "reliability",
            pa.float64(),
            "Dawid-Skene: estimated probability of preferring the better response of a decided pair.",
            nullable=True,
        ),
        column("position_known", pa.int64(), "Verdicts for a side where the order on screen is known."),
        column("first_share", pa.float64(), "Share of those for the response shown first.", nullable=True),
        column("first_low", pa.float64(), "Lower end of its 95 % Wilson interval."),
        column("first_high", pa.float64(), "Upper end of its 95 % Wilson interval."),
        column("position_z", pa.float64(), "Its distance from one half in standard errors.", nullable=True),
        column("longer_share", pa.float64(), "Share of verdicts for the longer response.", nullable=True),
        column("longer_low", pa.float64(), "Lower end of its 95 % Wilson interval."),
        column("longer_high", pa.float64(), "Upper end of its 95 % Wilson interval."),
        column(
            "length_z",
            pa.float64(),
            "How much more often they depart from the consensus toward the longer response than away from it, "
            "in standard errors.",
            nullable=True,
        ),
        column("timed", pa.int64(), "Counted judgments whose seconds are known."),
        column("seconds_median", pa.float64(), "Median time per judgment, in seconds.", nullable=True),
        column("too_fast_share", pa.float64(), "Share given faster than the texts can be read.", nullable=True),
        column(
            "justifications",
            pa.int64(),
            "Justifications of counted judgments; one given for all pairs of a record (a ranking) counts once.",
        ),
        column("justification_words_median", pa.float64(), "Their median length in words.", nullable=True),
        column(
            "justification_top_share",
            pa.float64(),
            "Share of the justification the annotator gives most often.",
            nullable=True,
        ),
        column(
            "justification_short_share",
            pa.float64(),
            "Share of justifications of fewer than three words.",
            nullable=True,
        ),
        column("few_judgments", pa.bool_(), "Too few comparable verdicts to conclude anything."),
        column(
            "suspected",
            pa.list_(pa.string()),
            "Signs of carelessness: disagrees, picks_by_position, picks_by_length, too_fast, one_justification, "
            "short_justifications.",
        ),
    ],
)
