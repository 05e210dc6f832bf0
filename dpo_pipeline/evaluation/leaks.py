"""Whether what is held out today was trained on: as pair, as demonstration, or in a champion a model was begun from.

All is searched again in the tables; what report and clusters say of themselves is not trusted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.conditions import Condition
from dpo_pipeline.evaluation.near_copies import near_copies
from dpo_pipeline.evaluation.standing import Standing, learners, pairs_behind, sft_behind
from dpo_pipeline.preferences.golden import golden_leaks, golden_rows, held_out_rows
from dpo_pipeline.sft.learned import Lesson, held_out_learned, lesson_of

ADVICE = (
    "Never change preferences.split_salt or held_out_share between two models that are to be compared; with another "
    "split, start a home of its own. Near copies: look the prompts up in pairs.parquet by their ids."
)
LESS_ALIKE = (
    "SFT leaves out what is like a held-out prompt from sft.held_out_similarity on: set it to "
    "preferences.prompt_cluster_jaccard and train again."
)


class Training(NamedTuple):
    """What the models learned from, by model; None where it is gone.

    Attributes:
        pairs: The preference_pairs artifact folders DPO was trained on.
        lessons: What the SFT before it was made from.
    """

    pairs: Mapping[str, Path | None]
    lessons: Mapping[str, Lesson | None]


def training_of(home: Home, standing: Standing) -> Training:
    """What challenger and champion learned from, and the champions each was begun from."""
    pairs: dict[str, Path | None] = {}
    lessons: dict[str, Lesson | None] = {}
    for name, checkpoint in learners(home, standing):
        sft = None if checkpoint is None else sft_behind(home, checkpoint)
        pairs[name] = None if checkpoint is None else pairs_behind(home, checkpoint)
        lessons[name] = None if sft is None else lesson_of(home.store, sft)
    return Training(pairs, lessons)


class _HeldOut(NamedTuple):
    """Ids of the held-out prompts, of their clusters, and both of those that are a golden set's."""

    prompts: set[str]
    clusters: set[str]
    golden: set[str]


@dataclass(slots=True)
class _Found:
    """What the search came upon: what forbids a promotion, what is only said, what nobody can tell, and numbers."""

    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    ways_out: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def nothing_leaked(
    pairs: Path, training: Training, *, jaccard: float, allowed: float, reporter: Reporter | None = None
) -> Condition:
    """Whether a held-out prompt, its cluster or a near copy of it was trained on, by challenger or champion.

    A champion that was taught one as a demonstration before it was held out has an advantage over the challenger; that
    is said and forbids nothing. A challenger begun from such a champion is forbidden.

    Args:
        pairs: The preference_pairs artifact folder the report was made from.
        training: What the models learned from.
        jaccard: Similarity of word 2-grams from which two prompts are near copies.
        allowed: Share of the held-out prompts that may have a near copy among the trained ones.
        reporter: Told now and then how far a long search is.
    """
    held_out, found = _held_out(pairs), _Found()
    found.numbers["held_out_prompts"] = count = len(held_out.prompts)
    for model, folder in training.pairs.items():
        if folder is None:
            found.unknown.append(f"the pairs that {model} learned from are gone")
        else:
            _in_pairs(found, model, folder, pairs, held_out, jaccard)
    for model, lesson in training.lessons.items():
        if lesson is None:
            where = found.remarks if _is_champion(model) else found.unknown
            where.append(f"the demonstrations that {model} learned from are gone")
        else:
            _in_demonstrations(found, model, lesson, pairs, held_out, jaccard=jaccard, allowed=allowed)
    near = near_copies(pairs, jaccard=jaccard, reporter=reporter)
    copies, golden = near.held_out, near.like_golden
    found.numbers["near copies"] = len(copies)
    if golden:
        found.faults.append(f"{len(golden)} trained prompts are near copies of golden ones, such as {golden[0]}")
    if len(copies) > allowed * count:
        found.faults.append(f"{len(copies)} of {count} held-out prompts have a near copy on the training side")
    said = found.faults or found.unknown
    sound = f"none of {count} held-out prompts was trained on; {len(copies)} have a near copy there"
    return Condition(
        "nothing_leaked",
        False if found.faults else None if found.unknown else True,
        "; ".join([*(said or [sound]), *found.remarks]),
        f"no held-out prompt in training, near copies (from {jaccard:g}) of at most {100 * allowed:g} % of them",
        " ".join(dict.fromkeys((*found.ways_out, ADVICE))),
        found.numbers,
    )


def _in_pairs(found: _Found, model: str, folder: Path, pairs: Path, held_out: _HeldOut, jaccard: float) -> None:
    """Held-out prompts among the trained pairs of a table, today's or an earlier one."""
    seen = (held_out.prompts & _trained(folder, "prompt_id")) | (held_out.clusters & _trained(folder, "cluster_id"))
    found.numbers[f"trained by {model}"] = len(seen)
    if seen:
        found.faults.append(f"{model} was trained on {len(seen)} held-out prompts or clusters{_golden(seen, held_out)}")
    like_golden = [] if folder == pairs else golden_leaks(pairs, similarity=jaccard, trained_in=folder)
    if like_golden:
        found.numbers[f"like golden by {model}"] = len(like_golden)
        found.faults.append(f"{model} was trained on {len(like_golden)} near copies of golden prompts")
    if seen or like_golden:
        found.ways_out.append(_way_out(model, is_of_today=folder == pairs))


def _in_demonstrations(
    found: _Found, model: str, lesson: Lesson, pairs: Path, held_out: _HeldOut, *, jaccard: float, allowed: float
) -> None:
    """Held-out prompts among what SFT was taught before this model."""
    same, nearly = held_out_learned(lesson, pairs, similarity=jaccard)
    found.numbers[f"demonstrated to {model}"] = len(same)
    found.numbers[f"nearly demonstrated to {model}"] = len(nearly)
    said = []
    if same:
        said.append(f"{model} was taught {len(same)} held-out prompts as demonstrations{_golden(same, held_out)}")
    if nearly & held_out.golden or len(nearly) > allowed * len(held_out.prompts):
        said.append(f"{model} was taught near copies of {len(nearly)} held-out prompts{_golden(nearly, held_out)}")
    if said and _is_champion(model):
        found.remarks += [f"{each}, which favours it" for each in said]
    elif said:
        found.faults += said
        is_of_today = lesson.pairs == pairs and "begun from" not in model
        found.ways_out.append(LESS_ALIKE if is_of_today else _way_out(model, is_of_today=False))


def _is_champion(model: str) -> bool:
    return model.startswith("champion")


def _golden(seen: Iterable[str], held_out: _HeldOut) -> str:
    count = len(held_out.golden.intersection(seen))
    return f", {count} of them of the golden set" if count else ""


def _way_out(model: str, *, is_of_today: bool) -> str:
    """What to do where a model has learned what is held out today, as after a golden set was pinned."""
    if "begun from" in model:
        return (
            "Train from the base model (operation.start_from: base): an earlier champion's weights hold those prompts."
        )
    if is_of_today:
        return "The table holds the same prompts on both sides: materialize preference_pairs again, then train."
    if model == "challenger":
        return (
            "The challenger learned from an earlier table, as where a golden set was pinned since: materialize "
            "sft_checkpoint and dpo_checkpoint again, on the tables built with it, then evaluation_report and champion."
        )
    return (
        "Today's champion learned from an earlier table. Once a challenger is trained on today's, take the champion's "
        "place away (`dpo-pipeline champion withdraw --reason ...`): the next model is then compared with SFT."
    )


def _held_out(pairs: Path) -> _HeldOut:
    names = ["prompt_id", "cluster_id"]
    prompts, clusters = (set(held_out_rows(pairs, names)[name].to_pylist()) for name in names)
    golden = golden_rows(pairs, names)
    return _HeldOut(prompts, clusters, {one for name in names for one in golden[name].to_pylist()})


def _trained(pairs: Path, column: str) -> set[str]:
    table = pq.read_table(pairs / "pairs.parquet", columns=[column], filters=[("split", "=", "train")])
    return set(table[column].to_pylist())
