"""What a drop's `drop.yaml` says about how to read its files: format, columns, vocabulary, per file pattern."""

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dpo_pipeline.annotations.encodings import ENCODINGS
from dpo_pipeline.core.settings import Settings

Word = Literal["tie", "both_bad", "not_rateable", "skipped"]


class ColumnMapping(Settings):
    """Which column, JSON field or form control holds what. Nested fields are written with dots: `data.prompt`."""

    prompt: str
    """The prompt: a text, or a list of messages (also as JSON inside a cell)."""

    system: str | None = None
    """A system instruction given before the prompt."""

    response_a: str | None = None
    """The response listed first."""

    response_b: str | None = None
    """The response listed second."""

    verdict: str | None = None
    """The verdict on the two, in words or numbers of the vocabulary."""

    strength: str | None = None
    """How much better, where that stands in a column of its own: 1-3, or words such as slightly, much."""

    responses: list[str] = Field(default=[])
    """For more than two responses: their columns in order, instead of response_a and response_b."""

    ranks: list[str] = Field(default=[])
    """One rank column per response; 1 is best, equal ranks are ties."""

    ratings: list[str] = Field(default=[])
    """One rating column per response; higher is better, equal ratings are ties."""

    ranking: str | None = None
    """One column with the whole order, best first: `B > A = C`, `2,1,3`, a JSON list, or ranks by response in a JSON
    object. Responses by letter, number or column; those not named lie below the named and are not compared."""

    response: str | None = None
    """For one response a row: its column, instead of all of the above. Rows that follow one another with the same
    prompt and annotator are one record."""

    rating: str | None = None
    """With `response`: its rating; higher is better, equal ratings are ties."""

    rank: str | None = None
    """With `response`: its rank; 1 is best, equal ranks are ties."""

    annotator: str | None = None
    """Who judged; only a keyed pseudonym of it is kept."""

    seconds: str | None = None
    """Time spent, in the file's `time_unit`."""

    judged_at: str | None = None
    """When the verdict was given: ISO 8601, M/D/YYYY H:M:S (see `day_first`), D.M.YYYY H:M:S, seconds since 1970 or a
    spreadsheet's days; UTC where no zone is named."""

    justification: str | None = None
    """The annotator's reason."""

    shown_first: str | None = None
    """Which response stood first on screen: a or b, or the name of its column."""

    guideline_version: str | None = None
    """Version of the annotation guideline followed."""

    dimensions: dict[str, str | list[str]] = Field(default={})
    """Rubric dimension -> its column, read with the same vocabulary as the verdict; or two columns that rate response_a
    and response_b, of which the difference counts. With one response a row: the column that rates it."""

    @property
    def needed_columns(self) -> list[str]:
        """The columns without which a record cannot become a judgment."""
        named = [self.prompt, self.response_a, self.response_b, self.verdict, self.ranking, *self.responses]
        alone = [self.response, self.rating, self.rank]
        return [column for column in (*named, *self.ranks, *self.ratings, *alone) if column is not None]

    @property
    def columns(self) -> list[str]:
        """Every column the mapping names."""
        named = [value for value in self.model_dump().values() if isinstance(value, str)]
        of_dimensions = [[value] if isinstance(value, str) else value for value in self.dimensions.values()]
        return [*named, *self.responses, *self.ranks, *self.ratings, *(one for some in of_dimensions for one in some)]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        pair = [self.response_a, self.response_b, self.verdict]
        ways = [any(pair), bool(self.responses), self.response is not None]
        if sum(ways) != 1 or (any(pair) and not all(pair)):
            message = (
                "give either response_a, response_b and verdict, or responses with ranks, ratings or ranking, "
                "or response with rating or rank where a row holds one response"
            )
            raise ValueError(message)
        if (self.response is not None) != (sum(one is not None for one in (self.rating, self.rank)) == 1):
            message = "response needs one of rating and rank, and they need response"
            raise ValueError(message)
        orders = [self.ranks, self.ratings, self.ranking]
        if self.responses and sum(map(bool, orders)) != 1:
            message = "responses need one of ranks, ratings and ranking"
            raise ValueError(message)
        if self.responses and self.ranking is None and len(self.responses) != len(self.ranks or self.ratings):
            message = f"{len(self.responses)} responses need as many ranks or as many ratings"
            raise ValueError(message)
        if any(isinstance(value, list) and len(value) != 2 for value in self.dimensions.values()):
            message = "a dimension is one column, or two that rate response_a and response_b"
            raise ValueError(message)
        return self


class FileRule(Settings):
    """How to read the files a pattern matches."""

    match: str = "*"
    """Pattern of file names, as POSIX paths inside the drop: `batch-*.csv`, `archive.zip!*.jsonl`."""

    format: str | None = None
    """Name of the export format; absent: recognised from the content."""

    source: str | None = None
    """Name of the platform for the tables' `source` column; absent: the format's name."""

    ignore: bool = False
    """Leave the files out; they are booked as ignored."""

    encoding: str | None = None
    """How CSV, TSV and JSON are encoded where that is not UTF-8: `cp1252` (what Excel writes as CSV), `utf-16`,
    `cp932`, ...; a byte order mark goes before it."""

    header_row: int | None = Field(default=None, ge=1, le=1_000)
    """Which row of a sheet or CSV file names the columns, from 1; absent: the first, or the one below titles that fill
    less than half of the columns."""

    fill_down: list[str] = Field(default=[])
    """Columns of which an empty cell holds what stands above it, as where cells were merged: a prompt once, then
    several rows of responses to it."""

    sheet_column: str | None = None
    """Name of a column that holds the name of a workbook's sheet, for the mapping to use: `annotator` where each sheet
    is one person's."""

    sft_allowed: bool | None = None
    """Whether the source permits its responses as SFT demonstrations; absent: what the format's publisher says."""

    guideline_version: str | None = None
    """Version of the annotation guideline, where the export does not carry it."""

    annotator_namespace: str = ""
    """Put before annotator ids, to keep apart people who bear the same id on different platforms."""

    mapping: ColumnMapping | None = None
    """Which column holds what, for spreadsheets and in-house exports."""

    vocabulary: dict[str, int | Word] = Field(default={})
    """Verdict as exported -> strength -3..3 (negative: response_a better), or tie, both_bad, not_rateable, skipped."""

    scale: Literal["likert_7", "likert_5", "signed_3"] | None = None
    """Numeric verdicts: 1-7 or 1-5 (1: response_a much better), or -3..3. Used where the vocabulary has no entry."""

    time_unit: Literal["seconds", "milliseconds", "minutes"] = "seconds"
    """What the mapping's column `seconds` counts, where it is a number (`0:01:30` is minutes and seconds by itself);
    times that a format has by itself are in the format's unit."""

    day_first: bool = False
    """Whether dates with slashes name the day first, 31/12/2026; absent: the month, as in the United States."""

    rating_step: float = Field(default=1.0, gt=0)
    """For ratings of responses, as a whole or on a dimension: the difference that counts as one step of strength."""

    likert_reversed: bool | None = None
    """True where the highest Likert value means that response_a is better; absent: as the profile says."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        if encoding is None or encoding.casefold().replace("_", "-") in {one.replace("_", "-") for one in ENCODINGS}:
            return encoding
        message = f"{encoding!r} is not read; known are {', '.join(ENCODINGS)}"
        raise ValueError(message)

    @field_validator("vocabulary")
    @classmethod
    def _in_range(cls, vocabulary: dict[str, int | Word]) -> dict[str, int | Word]:
        for word, meaning in vocabulary.items():
            if isinstance(meaning, int) and not -3 <= meaning <= 3:
                message = f"{word!r} has strength {meaning}; strengths lie in -3..3"
                raise ValueError(message)
        return {word.strip().casefold(): meaning for word, meaning in vocabulary.items()}


class DropRules(FileRule):
    """A drop's `drop.yaml`: rules per file pattern, and rules for every file no pattern matches."""

    files: list[FileRule] = Field(default=[])
    """Rules by pattern; the first that matches a file's name holds for it."""

    def rule_for(self, name: str) -> FileRule:
        """The rule that holds for a file."""
        for rule in self.files:
            if fnmatchcase(name, rule.match):
                return rule
        return self
