"""What must not be read again: annotators, records and texts that a tombstone names, and how a record is matched.

Nothing here names a person or quotes a text. Annotators stand as pseudonyms, records as the ids of their place, texts
as keyed digests: without the home's key none of them can be turned back or guessed.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.records import Demonstration, Judgment, Turns
from dpo_pipeline.annotations.tables import Origin, Pseudonyms
from dpo_pipeline.core.digests import canonical_json
from dpo_pipeline.core.settings import Settings

SETTING = "forgotten"
"""Where it stands among the settings of a table's manifest; absent where nothing applies."""
ANYBODY = "*"
_QUOTES = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "‛": "'", "`": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'}
)


class Forgotten(Settings):
    """Who and what a reading leaves out."""

    annotators: tuple[str, ...] = ()
    """Pseudonyms of annotators whose judgments are left out, sorted."""

    records: tuple[str, ...] = ()
    """Ids of records by their place: file digest, member and record number; sorted."""

    texts: tuple[str, ...] = ()
    """Keyed digests of what was said, so that the same text is also known when it is delivered again; sorted."""

    openings: tuple[str, ...] = ()
    """Keyed digests of how each of those texts begins, by which a copy that cannot be used is known; sorted."""

    def __bool__(self) -> bool:
        return bool(self.annotators or self.records or self.texts)

    def __or__(self, other: "Forgotten") -> "Forgotten":
        """Both together."""
        return Forgotten(
            annotators=tuple(sorted({*self.annotators, *other.annotators})),
            records=tuple(sorted({*self.records, *other.records})),
            texts=tuple(sorted({*self.texts, *other.texts})),
            openings=tuple(sorted({*self.openings, *other.openings})),
        )


class Matcher:
    """Says whether a record, or a row made of one, is forgotten, and by what.

    Args:
        forgotten: What is looked for.
        key: The home's pseudonym key; None where it is lost: then texts cannot be matched.

    Attributes:
        forgotten: As given; `key` likewise.
    """

    def __init__(self, forgotten: Forgotten, key: bytes | None) -> None:
        self.forgotten, self.key = forgotten, key
        self._annotators, self._records = frozenset(forgotten.annotators), frozenset(forgotten.records)
        self._texts = frozenset(forgotten.texts)
        self._pseudonyms = None if key is None else Pseudonyms(key)

    def pseudonym(self, annotator: str | None) -> str | None:
        """An annotator's pseudonym; None where there is no annotator or no key."""
        return None if self._pseudonyms is None else self._pseudonyms.of(annotator)

    def of_record(self, record_id: str) -> str | None:
        """Why a record at this place is forgotten, as a clause; None if it is not."""
        return "the record was taken back" if record_id in self._records else None

    def of_annotator(self, pseudonym: str | None) -> str | None:
        """Why an annotator's work is forgotten, as a clause; None if it is not."""
        return "its annotator withdrew" if pseudonym in self._annotators else None

    def of_part(self, part: Judgment | Demonstration) -> str | None:
        """Why a judgment or a demonstration is forgotten, as a clause; None if it is not."""
        pseudonym = self.pseudonym(part.annotator) if isinstance(part, Judgment) else None
        return self.of_annotator(pseudonym) or self._of_said(said_in(part), pseudonym)

    def of_row(self, row: Mapping[str, Any]) -> str | None:
        """The same of a row of `judgments`, `demonstrations` or `rejected_records`, for the columns it has."""
        found = self.of_annotator(row.get("annotator"))
        if self._records and not found:
            found = self.of_record(place_of(row))
        if found or not self._texts or ("prompt" not in row and "messages" not in row):
            return found
        return self._of_said(said_in_row(row), row.get("annotator"))

    def _of_said(self, said: Sequence[Any], pseudonym: str | None) -> str | None:
        if not self._texts or self.key is None:
            return None
        ways = (text_digest(said, self.key), text_digest(said, self.key, by=pseudonym))
        return "its text was taken back" if any(way in self._texts for way in ways) else None


def said_in(part: Judgment | Demonstration) -> list[Any]:
    """What a part says, without who judged it and how: prompt and both responses, in no order, or the conversation."""
    if isinstance(part, Demonstration):
        return ["demonstration", _plain_turns(part.messages)]
    responses = sorted((plain(part.response_a), plain(part.response_b)))
    return ["judgment", _plain_turns(part.prompt), responses]


def said_in_row(row: Mapping[str, Any]) -> list[Any]:
    """`said_in`, of a row of `judgments` or `demonstrations`."""
    turns = tuple((turn["role"], turn["content"]) for turn in row.get("messages") or row["prompt"])
    if "messages" in row:
        return said_in(Demonstration(turns))
    return said_in(Judgment(turns, row["response_a"], row["response_b"], "a"))


def place_of(row: Mapping[str, Any]) -> str:
    """The id of the record a row of any table was made of: its file's digest, the archive's member, its number."""
    return Origin("", "", row["file"], row["file_sha256"]).id_of(row["record_number"], 0)


def texts_in_row(row: Mapping[str, Any]) -> list[str]:
    """What a row of `judgments` or `demonstrations` says, text by text: every turn, and both responses."""
    turns = [turn["content"] for turn in row.get("messages") or row["prompt"]]
    return [*turns, *(row[name] for name in ("response_a", "response_b") if name in row)]


def text_digest(said: Sequence[Any], key: bytes, *, by: str | None = ANYBODY) -> str:
    """A keyed digest of what was said: by anybody, by this pseudonym alone, or (None) where nobody is named."""
    body = canonical_json([*said, by]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(body, digest_size=16, key=key, person=b"forgotten text").hexdigest()


def _plain_turns(turns: Turns) -> list[list[str]]:
    return [[role, plain(content)] for role, content in turns]


def plain(text: str) -> str:
    """A text as it counts here: case, width, quotes, spacing and invisible characters make no difference."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES)
    return " ".join("".join(one for one in folded if unicodedata.category(one) != "Cf").split())
