"""Settings of the annotations stage."""

from pydantic import Field

from dpo_pipeline.core.settings import Settings


class AnnotationSettings(Settings):
    """How export files are read. Per-drop facts (format, columns, vocabulary) stand in the drop's `drop.yaml`."""

    max_record_bytes: int = Field(default=4_000_000, ge=1_000)
    """Longest record read, in bytes; a longer one is rejected and skipped without being loaded."""

    max_file_bytes: int = Field(default=20_000_000_000, ge=1_000_000)
    """Most bytes read from one file after decompression."""

    max_compression_ratio: float = Field(default=200.0, gt=1)
    """Largest ratio of decompressed to compressed bytes; beyond it the rest of the file is rejected as a bomb."""

    likert_reversed: bool = False
    """True where a 1-7 scale has 7 = A much better; the usual direction is 1 = A much better."""
