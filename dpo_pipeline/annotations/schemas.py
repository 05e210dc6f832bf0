"""The three tables a drop becomes: judgments, demonstrations and rejected records."""

import pyarrow as pa

from dpo_pipeline.core.tables import MESSAGES, column, table_schema

ORIGIN = [
    column("drop", pa.string(), "Name of the delivery the record came with."),
    column("source", pa.string(), "Export format or platform the record was read as."),
    column("file", pa.string(), "File inside the drop, as a POSIX path (`archive.zip!member` for members)."),
    column("file_sha256", pa.string(), "SHA-256 of that file's bytes."),
    column("record_number", pa.int64(), "Position in the file: 1-based line, row or array index."),
]

DIMENSIONS = pa.list_(
    pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("strength", pa.float32(), nullable=False)])
)

JUDGMENTS = table_schema(
    "judgments",
    1,
    [
        column(
            "judgment_id", pa.string(), "blake2b-128 of file digest, record number and position in the record; hex."
        ),
        *ORIGIN,
        column("prompt", MESSAGES, "The conversation up to and including the last user turn."),
        column("response_a", pa.string(), "The response shown or listed first."),
        column("response_b", pa.string(), "The response shown or listed second."),
        column("choice", pa.string(), "a, b, tie, both_bad, not_rateable or skipped."),
        column("strength", pa.int8(), "-3..+3; negative: response_a is better; 0 unless choice is a or b."),
        column(
            "annotator", pa.string(), "Keyed pseudonym of the annotator; null where the export has none.", nullable=True
        ),
        column("votes", pa.int32(), "How many people's votes this row stands for; 1 unless the export was aggregated."),
        column("dimensions", DIMENSIONS, "Verdict per rubric dimension on the scale of strength."),
        column("justification", pa.string(), "The annotator's reason in their words.", nullable=True),
        column(
            "shown_first",
            pa.string(),
            "a or b: which response stood first on screen; null where unknown.",
            nullable=True,
        ),
        column("seconds", pa.float32(), "Time spent on the judgment, in seconds.", nullable=True),
        column("judged_at", pa.timestamp("us", tz="UTC"), "When the verdict was given.", nullable=True),
        column("guideline_version", pa.string(), "Version of the annotation guideline followed.", nullable=True),
        column("group_id", pa.string(), "Shared by the pairs of one ranking of K responses.", nullable=True),
        column("sft_allowed", pa.bool_(), "Whether the source permits its responses as SFT demonstrations."),
    ],
)

DEMONSTRATIONS = table_schema(
    "demonstrations",
    1,
    [
        column("demonstration_id", pa.string(), "blake2b-128 of file digest and record number; hex."),
        *ORIGIN,
        column("messages", MESSAGES, "The conversation; the last turn is the assistant's and is what SFT learns."),
    ],
)

REJECTED_RECORDS = table_schema(
    "rejected_records",
    1,
    [
        *ORIGIN,
        column("reason", pa.string(), "Reason code; `dpo_pipeline.annotations.reasons.Reason` has the sentence."),
        column("detail", pa.string(), "What was found in this record, in one sentence."),
        column("excerpt", pa.string(), "At most 200 characters of the record, control characters escaped."),
    ],
)
