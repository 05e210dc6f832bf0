"""The sides of all prompts of a build: near copies stay together, golden prompts are held out, crowds are searched."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences import deduplicate
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.crowds import Crowd
from dpo_pipeline.preferences.deduplicate import among_prompts, prompt_neighbours
from dpo_pipeline.preferences.demonstrated import (
    Demonstrations,
    has_demonstrations,
    known_of,
    write_demonstrated,
)
from dpo_pipeline.preferences.golden import like_golden, read_golden, write_golden
from dpo_pipeline.preferences.identifiers import from_hex, places
from dpo_pipeline.preferences.kept_out import write_kept_out
from dpo_pipeline.preferences.likeness import PROMPTS_LIKENESS_FILE, Likenesses, drops_covered
from dpo_pipeline.preferences.personal_data import redacted_by
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import NOTHING_SEARCHED, Searched, Splits, split_prompts
from dpo_pipeline.preferences.write import SPLITS_FILE, write_splits


class Sides(NamedTuple):
    """The split of a build's prompts, counts for its manifest, and remarks on the work."""

    splits: Splits
    counts: dict[str, int]
    remarks: dict[str, int]


def decide_sides(
    catalogue: Catalogue,
    out: Path,
    *,
    settings: PreferenceSettings,
    reporter: Reporter,
    known: Sequence[Path] = (),
) -> Sides:
    """Split the prompts of all drops; write `splits.parquet`, their likenesses and the golden set's pairs.

    Args:
        catalogue: The prompts.
        out: Folder.
        settings: What a near copy is, the share held out, the golden set.
        reporter: Told what each step found.
        known: Artifacts of earlier builds; they save time and change no byte.
    """
    taught = _taught(catalogue, settings, reporter)
    among = among_sides(catalogue, settings, taught)
    searched, splits_file = already_searched(catalogue, [folder / SPLITS_FILE for folder in known], among)
    crowd = crowd_of(catalogue, settings, since=searched.drops, reporter=reporter)
    paths = [folder / PROMPTS_LIKENESS_FILE for folder in known]
    with Likenesses(
        catalogue.prompts.ids,
        out / PROMPTS_LIKENESS_FILE,
        paths,
        among=among_prompts(catalogue),
        redacted=redacted_by(settings),
    ) as likenesses:
        neighbours = prompt_neighbours(
            catalogue, crowd=crowd, likenesses=likenesses, settings=settings, reporter=reporter
        )
    pinned, like_golden_too, counts = _pinned(catalogue, taught, out, settings, reporter)
    if taught:
        found = known_of(splits_file, searched.drops, catalogue, taught) if splits_file else None
        taught.begin(found, like_golden_too)
    splits = split_prompts(
        catalogue.draws(settings.split_salt),
        catalogue.prompts.place.drop,
        neighbours,
        share=settings.held_out_share,
        pinned=pinned,
        crowd=crowd,
        searched=searched,
        taught=taught,
        scratch=catalogue.scratch,
    )
    write_splits(out, catalogue, splits, among, taught.is_like if taught else None)
    write_kept_out(out, catalogue, splits)
    if taught:
        write_demonstrated(out, catalogue, taught, among)
        counts |= _told(taught, reporter)
    apart = int(splits.is_apart.sum())
    reporter.say(f"{len(crowd.prompts):,} prompts searched in crowds; {apart:,} in all set apart from the other side")
    remarks = {
        "likenesses_measured": likenesses.measured,
        "likenesses_reused": likenesses.reused,
        "prompts_searched_in_crowds": len(crowd.prompts),
    }
    return Sides(splits, {"prompts_set_apart": apart, **counts}, remarks)


def crowd_of(
    catalogue: Catalogue, settings: PreferenceSettings, *, since: int = 0, reporter: Reporter | None = None
) -> Crowd:
    """The prompts of which not all pairs are compared for edges, where they share a key with one of some later drop."""
    most = deduplicate.EARLY_PROMPTS + 1
    return Crowd(catalogue, most=most, since=since, similarity=settings.prompt_cluster_jaccard, reporter=reporter)


def already_searched(catalogue: Catalogue, known: Sequence[Path], among: Sequence[str]) -> tuple[Searched, Path | None]:
    """What an earlier build set apart in the first drops, where they were these, split by the same settings.

    Also its table of splits; None where there is none.

    Args:
        catalogue: The prompts.
        known: Their tables of splits; absent files and those of other drops and settings are passed over.
        among: What the sides of this build rest on.
    """
    result, of = NOTHING_SEARCHED, None
    for path in known:
        drops = drops_covered(pq.read_schema(path).metadata or {}, among) if path.is_file() else 0
        if drops > result.drops:
            apart = pq.read_table(path, columns=["prompt_id"], filters=[("is_apart", "=", True)])["prompt_id"]
            result, of = Searched(drops, places(catalogue.prompts.ids, from_hex(apart.combine_chunks()))), path
    return result, of


def among_sides(catalogue: Catalogue, settings: PreferenceSettings, taught: Demonstrations | None = None) -> list[str]:
    """What the sides rest on, drop by drop: the edges between the prompts, the demonstrations, and what decides."""
    golden = settings.golden_set.sha256 if settings.golden_set else None
    redacted = sorted(redacted_by(settings))
    decide = [settings.prompt_cluster_jaccard, settings.held_out_share, settings.split_salt, golden, redacted]
    decide.append(settings.demonstrated_earlier)
    edges, *digests = among_prompts(catalogue)
    if taught:
        digests = [f"{digest}+{taught.among(drop)}" for drop, digest in enumerate(digests)]
    return [f"{edges}:{digest_of_json(decide)}", *digests]


def _taught(catalogue: Catalogue, settings: PreferenceSettings, reporter: Reporter) -> Demonstrations | None:
    """The demonstrations, where there are any and the settings ask for them."""
    is_asked = settings.demonstrated_earlier == "train"
    if not is_asked or not any(has_demonstrations(drop.sketches) for drop in catalogue.drops):
        return None
    return Demonstrations(catalogue, similarity=settings.prompt_cluster_jaccard, reporter=reporter)


def _told(taught: Demonstrations, reporter: Reporter) -> dict[str, int]:
    """Counts of the demonstrations' prompts, and of those they decided about; said aloud as well."""
    count, out, like = len(taught.first_drop), int(taught.is_kept_out.sum()), int(taught.is_like.sum())
    reporter.say(
        f"{count:,} prompts of demonstrations, {out:,} kept out of training; {like:,} prompts of pairs are like one "
        "that an earlier drop may have taught, so none of these is held out"
    )
    return {"demonstrated_prompts": count, "demonstrated_prompts_kept_out": out, "prompts_like_demonstrations": like}


def _pinned(
    catalogue: Catalogue,
    taught: Demonstrations | None,
    out: Path,
    settings: PreferenceSettings,
    reporter: Reporter,
) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, int]]:
    """Which prompts of pairs, and which of demonstrations, are like one of the golden set's, whose pairs are written.

    Nothing where no set is pinned.
    """
    if settings.golden_set is None:
        return None, None, {}
    golden: pa.Table = read_golden(settings.golden_set, similarity=settings.prompt_cluster_jaccard)
    write_golden(out, golden)
    of_both = [
        like_golden(prompts, golden, similarity=settings.prompt_cluster_jaccard, redacted=redacted_by(settings))
        for prompts in (catalogue.prompts, *([taught.prompts] if taught else []))
    ]
    pinned, too = of_both[0], of_both[1] if taught else None
    name, count = settings.golden_set.name, int(pinned.sum())
    reporter.say(f"{golden.num_rows:,} pairs of the {name}; {count:,} prompts of the drops are like theirs")
    return pinned, too, {"pairs_golden": golden.num_rows, "prompts_like_golden": count}
