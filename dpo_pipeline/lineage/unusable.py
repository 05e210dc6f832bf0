"""Records that could not be used, once more from the raw files: who and what stands in them, which no table says."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpo_pipeline.annotations.parsing import read_source
from dpo_pipeline.annotations.quoting import leaves_of, quotes
from dpo_pipeline.annotations.read import checked_rules
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sinks import Sink
from dpo_pipeline.annotations.sources import sources_of
from dpo_pipeline.annotations.tables import Origin, Pseudonyms
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home

See = Callable[[str, str, Any], Iterable[str]]
"""Of a record: its place, its reason, and what came; gives the names of what was found in it."""


@dataclass(slots=True)
class Found:
    """What was found in the unusable records of one drop's table, by name: how often, under which reason."""

    table: Artifact
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def in_words(self, names: Iterable[str]) -> str:
        """How many records hold one of these, by reason."""
        counts = sum((self.reasons.get(name, Counter()) for name in names), Counter[str]())
        return ", ".join(f"{count:,} rejected: {reason}" for reason, count in sorted(counts.items()))


def annotators_in_unusable(home: Home, names: Sequence[str], own: str) -> list[Found]:
    """Which of these pseudonyms stand in unusable records, table by table.

    Args:
        home: Whose raw files are read again.
        names: Pseudonyms to look for.
        own: The platform's own id, if that was given: a record that is no JSON is looked through for it as it stands.
    """
    pseudonyms, wanted = Pseudonyms(home.pseudonym_key()), frozenset(names)

    def see_in(spaces: Sequence[str]) -> See:
        def see(_: str, __: str, raw: Any) -> Iterable[str]:
            leaves = leaves_of(raw)
            if leaves is None:
                leaves = [own] if own in _as_text(raw) else []
            return {str(pseudonyms.of(space + leaf)) for leaf in leaves for space in spaces} & wanted

        return see

    return [found for found in _looked_through(home, see_in) if found.reasons]


def quoting_unusable(home: Home, openings: Iterable[str]) -> list[Found]:
    """The tables whose unusable records quote a text that begins like this."""
    key, wanted = home.pseudonym_key(), frozenset(openings)

    def see(_: str, __: str, raw: Any) -> Iterable[str]:
        leaves = leaves_of(raw)
        return ["quoted"] if quotes(_as_text(raw).split('"') if leaves is None else leaves, wanted, key) else []

    return [found for found in _looked_through(home, lambda _: see) if found.reasons] if wanted else []


def texts_of_unusable(home: Home, places: Iterable[str]) -> list[str]:
    """Everything that stands in the unusable records at these places."""
    wanted, texts = frozenset(places), list[str]()

    def see(place: str, _: str, raw: Any) -> Iterable[str]:
        if place in wanted:
            texts.extend(leaves_of(raw) or ())
        return ()

    for _ in _looked_through(home, lambda _: see) if wanted else ():
        pass
    return texts


def _looked_through(home: Home, see_in: Callable[[Sequence[str]], See]) -> Iterator[Found]:
    """Every table of rejected records that holds any, after the raw files behind it were read again."""
    seen: set[tuple[str, str]] = set()
    for table in home.all_made("rejected_records"):
        raw = next((parent.digest for parent in table.parents if parent.kind == "raw_annotations"), "")
        settings = table.manifest["settings"]
        named = (raw, str(settings.get("annotations")))
        quoted = {name for name in table.counts if name != "rejected"} - {Reason.FORGOTTEN.value}
        if not quoted or named in seen:
            continue
        seen.add(named)
        try:
            files = home.store.get("raw_annotations", raw).path / "files"
        except ArtifactError:
            continue  # deleted by a person: nothing is left to look through
        rules = checked_rules(files)
        found = Found(table)
        spaces = sorted({rule.annotator_namespace for rule in (rules, *rules.files)})
        sink = _Looking(found, see_in(spaces))
        bounds = AnnotationSettings.parse(settings.get("annotations", {}), where="the manifest")
        for source in sources_of(files, bounds):
            read_source(source, rules, bounds, sink)
        yield found


def _as_text(raw: Any) -> str:
    """What came of a record that is no JSON."""
    return raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")


class _Looking(Sink):
    """Shows every record that cannot be used, in whole or in part."""

    def __init__(self, found: Found, see: See) -> None:
        self._found, self._see = found, see
        self._origin = Origin("", "", "", "")

    def begin(self, table: str, sha256: str, source: str, private: frozenset[str] = frozenset()) -> None:  # noqa: ARG002
        """See `Sink`."""
        self._origin = Origin("", source, table, sha256)

    def keep(self, number: int, parts: Sequence[Part], raw: Any) -> None:
        """See `Sink`."""
        for part in parts:
            if isinstance(part, Unusable):
                self.reject(number, part, raw)

    def reject(self, number: int, problem: Unusable, raw: Any) -> None:
        """See `Sink`."""
        for name in self._see(self._origin.id_of(number, 0), problem.reason.value, raw):
            self._found.reasons.setdefault(name, Counter())[problem.reason.value] += 1
