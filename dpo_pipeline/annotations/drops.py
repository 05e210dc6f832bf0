"""A drop as it was delivered: copying it in, and what its `drop.yaml` says about how to read it."""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import InputError, SettingsError
from dpo_pipeline.core.settings import Settings

DROP_YAML = "drop.yaml"
COMPLETE = "_COMPLETE"
MAX_DROP_YAML_BYTES = 1_000_000

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

    responses: list[str] = Field(default=[])
    """For more than two responses: their columns in order, instead of response_a and response_b."""

    ranks: list[str] = Field(default=[])
    """One rank column per response; 1 is best, equal ranks are ties."""

    ratings: list[str] = Field(default=[])
    """One rating column per response; higher is better, equal ratings are ties."""

    annotator: str | None = None
    """Who judged; only a keyed pseudonym of it is kept."""

    seconds: str | None = None
    """Time spent, in seconds."""

    judged_at: str | None = None
    """When the verdict was given: ISO 8601, M/D/YYYY H:M:S or seconds since 1970; UTC where no zone is named."""

    justification: str | None = None
    """The annotator's reason."""

    shown_first: str | None = None
    """Which response stood first on screen: a or b, or the name of its column."""

    guideline_version: str | None = None
    """Version of the annotation guideline followed."""

    dimensions: dict[str, str] = Field(default={})
    """Rubric dimension -> its column; read with the same vocabulary as the verdict."""

    @property
    def needed_columns(self) -> list[str]:
        """The columns without which a record cannot become a judgment."""
        named = [self.prompt, self.response_a, self.response_b, self.verdict, *self.responses, *self.ranks]
        return [column for column in (*named, *self.ratings) if column is not None]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        pair = [self.response_a, self.response_b, self.verdict]
        if all(pair) == bool(self.responses) or (any(pair) and self.responses):
            message = "give either response_a, response_b and verdict, or responses with ranks or ratings"
            raise ValueError(message)
        if self.responses and len(self.responses) not in {len(self.ranks), len(self.ratings)}:
            message = f"{len(self.responses)} responses need as many ranks or as many ratings"
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

    rating_step: float = Field(default=1.0, gt=0)
    """For ratings of K responses: the difference that counts as one step of strength."""

    likert_reversed: bool | None = None
    """True where the highest Likert value means that response_a is better; absent: as the profile says."""

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


def copy_drop(inbox_folder: Path, out: Path) -> Outcome:
    """Copy a drop's files to `out/files/`, unread. Sub-folders are kept; the marker and hidden files are left out.

    Returns:
        Counts `files` and `bytes`.

    Raises:
        InputError: If there is a symbolic link or something that is not a plain file, or no file at all.
    """
    files = sorted(_plain_files(inbox_folder))
    if not files:
        raise InputError(
            f"the drop folder {inbox_folder} holds no files",
            expected="the export files of one delivery",
            do="Put the files there, or remove the folder",
        )
    size = 0
    for path in files:
        target = out / "files" / path.relative_to(inbox_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target, follow_symlinks=False)
        size += target.stat().st_size
    return Outcome(counts={"files": len(files), "bytes": size})


def _plain_files(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                f"{path} is a link or a special file",
                expected="plain files and folders, so that a drop cannot reach outside itself",
                do="Replace it by the file itself",
            )
        if is_left_out(path):
            continue
        found += _plain_files(path) if path.is_dir() else [path]
    return found


def is_left_out(path: Path) -> bool:
    """Whether a file of a drop's folder is not part of the delivery: the marker of completeness, a hidden file."""
    return path.name == COMPLETE or path.name.startswith(".")


def load_rules(folder: Path) -> DropRules:
    """What `drop.yaml` in a folder says; the defaults where there is none.

    Raises:
        SettingsError: If it is not YAML, too large, repeats a key, uses aliases, or values do not fit.
    """
    path = folder / DROP_YAML
    if not path.is_file():
        return DropRules()
    content = path.read_bytes()
    if len(content) > MAX_DROP_YAML_BYTES:
        raise SettingsError(DROP_YAML, [f"it is {len(content)} bytes long; at most {MAX_DROP_YAML_BYTES} are read"])
    try:
        # Every scalar stays a text here, so that a vocabulary's `yes` or `007` is what the author wrote.
        values = yaml.load(content, Loader=_StrictLoader)  # noqa: S506 (derives from the loader that makes only texts)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(DROP_YAML, [f"it is not YAML: {error}"]) from error
    return DropRules.parse({} if values in (None, "") else values, where=DROP_YAML)


class _StrictLoader(yaml.BaseLoader):
    """YAML as texts, lists and mappings only; refuses aliases (they can be bombs) and repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 (PyYAML's signature)
        keys = [key.value for key, _ in node.value]
        repeated = {str(key) for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.YAMLError(f"{', '.join(sorted(repeated))} stands there twice")
        return super().construct_mapping(node, deep=deep)
