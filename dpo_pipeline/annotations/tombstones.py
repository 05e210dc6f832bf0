"""Tombstones: ledger lines that say who or what must be left out from then on, and to which readings each applies."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.annotations.forgotten import SETTING, Forgotten
from dpo_pipeline.core.artifacts import Artifact, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home

EVENT = "forgotten"
TABLES = ("judgments", "rejected_records", "demonstrations")
"""The tables one reading of a drop gives; the first stands for all of them."""
LEARNERS = (
    "pair_sketches",
    "preference_pairs",
    "annotator_report",
    "sft_checkpoint",
    "reference_logprobs",
    "dpo_checkpoint",
    "sweep_point",
)
"""What is never made from a table that still holds what is forgotten. Reports on and releases of older models are."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One ledger line of the event `forgotten`.

    Attributes:
        number: Its line in the ledger, from 1.
        time: When it was written.
        person: Who wrote it.
        reason: Why, in their words.
        what: What is forgotten, in words that name nobody.
        forgotten: The same, as a reading matches it.
        drops: The drops in whose tables some of it was found at that time.
        checkpoints: Digests of the checkpoints that had learned from it by then.
        key: Fingerprint of the pseudonym key it was written under.
    """

    number: int
    time: str
    person: str
    reason: str
    what: str
    forgotten: Forgotten
    drops: tuple[str, ...]
    checkpoints: tuple[str, ...]
    key: str

    @property
    def needs_key(self) -> bool:
        """Whether only the key it was written under can say whom or what it means."""
        return bool(self.forgotten.annotators or self.forgotten.texts)


def tombstones(home: Home) -> list[Tombstone]:
    """Every tombstone of a home, oldest first."""
    return [
        Tombstone(
            line["seq"] + 1,
            line["time"],
            line["person"],
            line["reason"],
            line["what"],
            Forgotten.parse(line["forgotten"], where=f"ledger line {line['seq'] + 1}"),
            tuple(line["drops"]),
            tuple(line["checkpoints"]),
            line["pseudonyms"],
        )
        for line in home.ledger.lines()
        if line["event"] == EVENT
    ]


def due(home: Home, reading: Recipe) -> Forgotten:
    """What a reading of a drop must leave out.

    A tombstone applies unless this very reading (same files, settings, code, earlier tombstones) was made before it and
    nothing of it was found there: so a drop that has nothing to do with it keeps its digests, and a drop that arrives
    later, or is read in another way, is read with it.

    Args:
        home: Whose ledger is asked.
        reading: The recipe of the drop's `judgments`, without what is forgotten.

    Raises:
        InputError: If a tombstone was written under another pseudonym key: nobody could tell whom it means.
    """
    applied = Forgotten()
    known = tombstones(home)
    if other := [stone for stone in known if stone.needs_key and stone.key != home.pseudonym_fingerprint()]:
        raise InputError(
            f"the tombstone on ledger line {other[0].number} was written under another pseudonym key",
            expected="the key whose fingerprint it names: with another nobody can tell whose work must be left out",
            do=f"Restore {home.root / 'keys' / 'pseudonym.key'} from its backup, or begin a new home without that work",
        )
    made = {(line["recipe"], line["seq"]) for line in home.finished()} if known else set()
    for stone in known:
        digest = with_forgotten(reading, applied).digest
        was_looked_through = any(recipe == digest and seq < stone.number for recipe, seq in made)
        if reading.settings.get("drop") in stone.drops or not was_looked_through:
            applied |= stone.forgotten
    return applied


def with_forgotten(reading: Recipe, forgotten: Forgotten) -> Recipe:
    """The recipe of a reading that leaves this out; the same one where there is nothing to leave out."""
    if not forgotten:
        return reading
    settings = {**reading.settings, SETTING: forgotten.model_dump(mode="json")}
    return Recipe(reading.kind, reading.code_version, settings, reading.parents)


def left_out_by(home: Home, reading: Recipe) -> dict[str, Any]:
    """What a reading leaves out, as settings of its recipe; empty where nothing applies."""
    forgotten = due(home, reading)
    return {SETTING: forgotten.model_dump(mode="json")} if forgotten else {}


def forgotten_in(artifact: Artifact) -> Forgotten:
    """What a table's reading left out, by its manifest."""
    return Forgotten.parse(artifact.manifest["settings"].get(SETTING, {}), where=f"the manifest of {artifact.path}")


def is_stale(home: Home, table: Artifact) -> bool:
    """Whether a drop's table was read without a tombstone that applies to it by now."""
    settings = {name: value for name, value in table.manifest["settings"].items() if name != SETTING}
    reading = Recipe(TABLES[0], table.manifest["code_version"], settings, table.parents)
    return due(home, reading) != forgotten_in(table)


def refuse_forgotten(home: Home, made: str, artifact: Artifact) -> None:
    """Refuse an input behind which a table stands that still holds what is forgotten.

    Args:
        home: Where it lies.
        made: The asset that is about to be made from it.
        artifact: The input.

    Raises:
        ArtifactError: Naming the drop to be read again.
    """
    if made not in LEARNERS or not tombstones(home):
        return
    for table in stale_tables(home, artifact):
        drop = table.manifest["settings"].get("drop")
        raise ArtifactError(
            f"an input of {made} rests on drop {drop} as it was read before records of it were forgotten",
            expected="a table read since the tombstone in the ledger",
            do=f"Materialize judgments of drop {drop} again, then what is made from it (the sensor `forgotten` or "
            "`python -m assets.materialize` does both)",
        )


def stale_tables(home: Home, artifact: Artifact) -> Iterator[Artifact]:
    """The drops' tables behind an artifact, itself included, that still hold what is forgotten."""
    waiting, seen = [artifact], set[str]()
    while waiting:
        one = waiting.pop()
        if one.path.name in seen:
            continue
        seen.add(one.path.name)
        if one.kind in TABLES:
            if is_stale(home, one):
                yield one
            continue
        parents = (parent for parent in one.parents if parent.kind != "raw_annotations")
        waiting += [home.store.get(parent.kind, parent.digest) for parent in parents]


def drops_to_read_again(home: Home) -> list[str]:
    """The drops whose newest tables were read without a tombstone that applies to them, in order of arrival."""
    if not tombstones(home):
        return []
    return [drop for drop in home.partitions(TABLES[0]) if is_stale(home, home.latest(TABLES[0], drop))]
