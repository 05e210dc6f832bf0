"""The bundled scenario: two drops written into an inbox, and beside it `planted.json` with every fault planted in them.

The shop Fernhill aligns its agents' replies to its tone guidelines. Some of its teams keep them, others do not;
nine annotators compared replies, first in Label Studio, then on a vendor's side-by-side form.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.samples import broken, catalog, exports
from dpo_pipeline.samples.broken import Broken
from dpo_pipeline.samples.items import Desk, Item, Kind
from dpo_pipeline.samples.judges import ANNOTATORS
from dpo_pipeline.samples.replies import draw_case, logged, message

FIRST, SECOND = "2026-09-first", "2026-10-second"
COMPLETE = "_COMPLETE"
UNSEEN_COMBINATIONS = 8


@dataclass(frozen=True, slots=True)
class ScenarioFacts:
    """What was written and planted; `planted.json` holds the same.

    Attributes:
        drops: Per drop: demonstrations, pairs and verdicts that are sound, damaged records, files.
        faults: Per kind of fault: `count` and `where` (prompts for pairs; drop, file and record number for records);
            for records also `reason`, the code under which reading should reject them.
        annotators: Per annotator id on the platforms: reliability and whether careless.
        unseen_combinations: Product and issue that no demonstration shows.
    """

    seed: int
    scale: float
    drops: Mapping[str, Mapping[str, Any]]
    faults: Mapping[str, Mapping[str, Any]]
    annotators: Mapping[str, Mapping[str, Any]]
    unseen_combinations: Sequence[tuple[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class _Plan:
    """How much of what goes into one drop, before scaling."""

    name: str
    start: datetime
    random_sides: bool
    demonstrations: int
    plain: int
    made: Mapping[Kind, int]
    copied: Mapping[Kind, int]
    copied_from_earlier: Mapping[Kind, int] = field(default_factory=dict)
    damaged: int = 12


_PLANS = (
    _Plan(
        FIRST,
        datetime(2026, 8, 17, 8, tzinfo=UTC),
        random_sides=False,
        demonstrations=3_000,
        plain=1_100,
        made={Kind.TIE: 50, Kind.BOTH_BAD: 24, Kind.CONTRADICTION: 26, Kind.EMPTY: 10},
        copied={Kind.EXACT: 12, Kind.NORMALISED: 10, Kind.SWAPPED: 14, Kind.NEAR: 18, Kind.REPEATED: 8},
    ),
    _Plan(
        SECOND,
        datetime(2026, 9, 14, 8, tzinfo=UTC),
        random_sides=True,
        demonstrations=2_000,
        plain=740,
        made={Kind.TIE: 30, Kind.BOTH_BAD: 16, Kind.CONTRADICTION: 14, Kind.EMPTY: 6},
        copied={Kind.EXACT: 6, Kind.NORMALISED: 6, Kind.SWAPPED: 6, Kind.NEAR: 8, Kind.REPEATED: 4},
        copied_from_earlier={Kind.EXACT: 8, Kind.SWAPPED: 6, Kind.NEAR: 8},
    ),
)


def generate_scenario(inbox: Path, *, seed: int, scale: float = 1.0) -> ScenarioFacts:
    """Write the two drops into `inbox` and `planted.json` beside it; equal arguments give equal bytes.

    Each drop gets its marker `_COMPLETE` last, so a sensor never sees a half-written one.

    Args:
        inbox: Folder the drops are made in; must not hold them yet.
        seed: Seed of everything that uses chance.
        scale: Share of the full size (5,000 demonstrations, 2,000 pairs); from 0.01 on every planted kind stays.

    Raises:
        FileExistsError: If one of the drops is already there.
    """
    chance = random.Random(seed_for(seed, "scenario"))  # noqa: S311 (a story, not a secret)
    combinations = [(product, issue) for product in catalog.PRODUCTS for issue in catalog.ISSUES]
    unseen = sorted(chance.sample(combinations, UNSEEN_COMBINATIONS))
    seen = [combination for combination in combinations if combination not in unseen]
    book, earlier, drops = _FaultBook(), [], {}
    for plan in _PLANS:
        stream = random.Random(seed_for(seed, "scenario", plan.name))  # noqa: S311
        items = _items(plan, combinations, earlier, scale=scale, chance=stream)
        conversations = _conversations(seen, plan.name, _scaled(plan.demonstrations, scale), stream)
        drops[plan.name] = _write_drop(inbox / plan.name, plan, items, conversations, book, scale=scale, chance=stream)
        earlier += [item for item in items if item.kind is Kind.PLAIN]
    for one in ANNOTATORS:
        if one.is_careless:
            book.add("careless_annotators", {"annotator": str(one.number)})
    facts = ScenarioFacts(
        seed=seed,
        scale=scale,
        drops=drops,
        faults=book.faults,
        annotators={
            str(one.number): {"reliability": one.reliability, "careless": one.is_careless} for one in ANNOTATORS
        },
        unseen_combinations=unseen,
    )
    text = json.dumps(facts.as_dict(), indent=1, ensure_ascii=False, sort_keys=True)
    (inbox.parent / "planted.json").write_text(text + "\n", encoding="utf-8")
    return facts


@dataclass(slots=True)
class _FaultBook:
    """Gathers what was planted."""

    faults: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, where: Mapping[str, Any], reason: str | None = None) -> None:
        entry = self.faults.setdefault(kind, {"count": 0, "where": []} | ({"reason": reason} if reason else {}))
        entry["count"] += 1
        entry["where"].append(dict(where))


def _scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def _items(
    plan: _Plan, combinations: list[tuple[str, str]], earlier: list[Item], *, scale: float, chance: random.Random
) -> list[Item]:
    """The drop's items in shuffled order. Copied are items on which all agree, each at most once per drop."""
    desk = Desk(chance, plan.start, plan.random_sides)
    plain = [desk.plain(draw_case(chance, combinations)) for _ in range(_scaled(plan.plain, scale))]
    items = list(plain)
    for kind, count in plan.made.items():
        make = desk.emptied if kind is Kind.EMPTY else lambda case, kind=kind: desk.plain(case, kind)
        items += [make(draw_case(chance, combinations)) for _ in range(_scaled(count, scale))]
    for source, counts in ((plain, plan.copied), (earlier, plan.copied_from_earlier)):
        kinds = [kind for kind, count in counts.items() for _ in range(_scaled(count, scale))]
        agreed = [item for item in source if item.is_unanimous]
        originals = chance.sample(agreed, min(len(kinds), len(agreed)))
        items += [desk.copied(original, kind) for original, kind in zip(originals, kinds, strict=False)]
    chance.shuffle(items)
    return items


def _conversations(
    combinations: list[tuple[str, str]], drop: str, count: int, chance: random.Random
) -> list[dict[str, Any]]:
    """Agents' logs: about half of them on-brand, the others as the teams' habits are."""
    conversations = []
    for number in range(1, count + 1):
        case = draw_case(chance, combinations)
        question = message(case, chance)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": logged(case, chance)}]
        conversations.append({"conversation_id": f"{drop}/{number:05d}", "messages": turns})
    return conversations


def _write_drop(
    folder: Path,
    plan: _Plan,
    items: list[Item],
    conversations: list[dict[str, Any]],
    book: _FaultBook,
    *,
    scale: float,
    chance: random.Random,
) -> dict[str, Any]:
    """Write a drop's files, then its marker; what was planted goes into `book`."""
    folder.mkdir(parents=True)
    damaged_count = _scaled(plan.damaged, scale)
    extra = _items_to_damage(plan, damaged_count, chance)
    if plan.name == FIRST:
        judged, drop_yaml = "project-14-at-2026-09-11.json", exports.LABEL_STUDIO_DROP
        sound = [(item, [exports.json_line(exports.label_studio_task(item, n))]) for n, item in enumerate(items, 1)]
        damaged = broken.broken_tasks(extra)
        pack: Callable[[list[bytes]], bytes] = exports.label_studio_array
    else:
        judged, drop_yaml = "side_by_side_batch_7.csv", exports.SIDE_BY_SIDE_DROP
        sound = [
            (item, [exports.csv_line(row) for row in exports.side_by_side_rows(item, n)])
            for n, item in enumerate(items, 1)
        ]
        damaged = broken.broken_rows(extra)
        header = exports.csv_line(exports.SIDE_BY_SIDE_COLUMNS)
        pack = lambda rows: header + b"".join(rows)  # noqa: E731
    records = _interleaved(sound, damaged, chance)
    _record_faults(records, plan.name, judged, book)
    (folder / judged).write_bytes(pack([content for _, content in records]))
    spoiled = broken.broken_demonstrations(chance.sample(conversations, min(damaged_count, len(conversations))))
    lines = _interleaved([(None, [exports.json_line(one)]) for one in conversations], spoiled, chance)
    _record_faults(lines, plan.name, "agent_replies.jsonl", book)
    (folder / "agent_replies.jsonl").write_bytes(b"".join(content + b"\n" for _, content in lines))
    (folder / "drop.yaml").write_text(drop_yaml, encoding="utf-8")
    (folder / COMPLETE).touch()
    usable = [item for item in items if item.kind is not Kind.EMPTY]
    return {
        "files": [judged, "agent_replies.jsonl"],
        "demonstrations": len(conversations),
        "pairs": len(usable),
        "verdicts": sum(len(item.verdicts) for item in usable),
        "damaged_records": len(damaged) + len(spoiled),
    }


def _items_to_damage(plan: _Plan, count: int, chance: random.Random) -> list[Item]:
    desk = Desk(chance, plan.start, plan.random_sides)
    combinations = [(product, issue) for product in catalog.PRODUCTS for issue in catalog.ISSUES]
    return [desk.plain(draw_case(chance, combinations)) for _ in range(count)]


def _interleaved(
    sound: Sequence[tuple[Item | None, list[bytes]]], damaged: Sequence[Broken], chance: random.Random
) -> list[tuple[Item | Broken | None, bytes]]:
    """Sound records in their order with the damaged ones scattered among them (never first: readers look there)."""
    records: list[tuple[Item | Broken | None, bytes]] = [(item, line) for item, lines in sound for line in lines]
    for one in damaged:
        records.insert(chance.randrange(1, len(records) + 1), (one, one.content))
    return records


def _record_faults(
    records: Sequence[tuple[Item | Broken | None, bytes]], drop: str, file: str, book: _FaultBook
) -> None:
    """Name damaged records by drop, file and number, and planted items by their prompts."""
    noted: set[int] = set()
    for number, (what, _) in enumerate(records, start=1):
        place = {"drop": drop, "file": file, "record_number": number}
        if isinstance(what, Broken):
            book.add(f"broken/{what.kind}", place, what.reason)
        elif what is not None and what.kind is Kind.EMPTY:
            book.add(what.kind.value, place, "empty_response")
        elif what is not None and what.kind is not Kind.PLAIN and id(what) not in noted:
            noted.add(id(what))
            book.add(what.kind.value, {"drop": drop, **what.identity})
