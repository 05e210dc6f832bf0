"""Held-out prompts that an SFT checkpoint has learned as demonstrations: its inputs, asked again about today's split.

What was learned before a prompt was held out stays in the weights, and in every model begun from them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dpo_pipeline.core.artifacts import Artifact, ArtifactStore
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences.golden import held_out_rows
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.personal_data import redact_conversations, redacted_in
from dpo_pipeline.preferences.prompt_index import PromptIndex
from dpo_pipeline.sft.demonstrations import conversations, is_for_perplexity
from dpo_pipeline.sft.held_out import PAIRS, HeldOutPrompts
from dpo_pipeline.sft.settings import SftSettings

CHOICE = ("chosen_as_demonstrations", "override_sft_permission", "held_out_share", "held_out_similarity")
"""The settings of SFT that decide what is learned; the others may have changed since."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an SFT checkpoint was made from.

    Attributes:
        demonstrations: `demonstrations` artifact folders.
        pairs: The `preference_pairs` artifact folder of that day.
        settings: Which of the demonstrations were learned.
        seed: Seed of the choice of what was kept aside.
    """

    demonstrations: tuple[Path, ...]
    pairs: Path
    settings: SftSettings
    seed: int


class Learned(NamedTuple):
    """Ids of held-out prompts: those learned as they are, and others of which a near copy was."""

    same: frozenset[str]
    nearly: frozenset[str]


def lesson_of(store: ArtifactStore, checkpoint: Artifact) -> Lesson | None:
    """What an sft_checkpoint was made from; None where a table of it is gone, so that nobody can tell."""
    folders = {
        kind: tuple(store.path_of(kind, parent.digest) for parent in checkpoint.parents if parent.kind == kind)
        for kind in ("demonstrations", "preference_pairs")
    }
    pairs, settings = folders["preference_pairs"], checkpoint.manifest["settings"]
    if not pairs or not all(path.is_dir() for paths in folders.values() for path in paths):
        return None
    choice = {name: settings["sft"][name] for name in CHOICE if name in settings["sft"]}
    where = f"the settings of {checkpoint.digest}"
    return Lesson(
        folders["demonstrations"], pairs[0], SftSettings.parse(choice, where=where), settings["model"]["seed"]
    )


def held_out_learned(lesson: Lesson, pairs: Path, *, similarity: float) -> Learned:
    """The held-out prompts of a table, a golden set's included, that were learned, or nearly.

    Law: a prompt counts if and only if SFT on that lesson trains on it or on a near copy of it.

    Args:
        lesson: What SFT was made from.
        pairs: The `preference_pairs` artifact folder whose held-out side is asked about.
        similarity: Jaccard similarity of word 2-grams from which a prompt is a near copy.
    """
    rows, rules = held_out_rows(pairs, ["prompt_id", "prompt"]), redacted_in(pairs / PAIRS)
    prompts = redact_conversations(rows["prompt"].combine_chunks(), rules=rules)
    asked = dict(zip(rows["prompt_id"].to_pylist(), prompts.to_pylist(), strict=True))
    learned = _learned_like(lesson, asked, similarity=similarity, rules=rules)
    if not learned:
        return Learned(frozenset(), frozenset())
    said = redact_conversations(pa.array(learned.values(), MESSAGES), rules=rules)
    near = PromptIndex(said, similarity=similarity).near(pa.array(asked.values(), MESSAGES))
    same = asked.keys() & learned.keys()
    return Learned(
        frozenset(same), frozenset(name for name, is_near in zip(asked, near.tolist(), strict=True) if is_near) - same
    )


def _learned_like(
    lesson: Lesson, asked: dict[str, list[dict[str, str]]], *, similarity: float, rules: frozenset[str]
) -> dict[str, list[dict[str, str]]]:
    """The prompts SFT trained on that are one of those asked about or like one, by their ids.

    Few are, so these alone are held against what was left out of training then.
    """
    index = PromptIndex(pa.array(asked.values(), MESSAGES), similarity=similarity)
    alike: dict[str, list[dict[str, str]]] = {}
    for messages, _, permitted in conversations(lesson.demonstrations, lesson.pairs, lesson.settings):
        prompts = pa.array([conversation[:-1] for conversation in messages], MESSAGES)
        near = index.near(redact_conversations(prompts, rules=rules)).tolist()
        for row, (name, is_near) in enumerate(zip(to_hex(prompt_keys(prompts)).to_pylist(), near, strict=True)):
            is_used = permitted[row] or lesson.settings.override_sft_permission
            if is_used and (is_near or name in asked):
                alike[name] = messages[row][:-1]
    if not alike:
        return {}
    then = HeldOutPrompts(lesson.pairs, similarity=lesson.settings.held_out_similarity)
    ids, reasons = then.reasons(list(alike.values()))
    share, seed = lesson.settings.held_out_share, lesson.seed
    return {
        name: prompt
        for (name, prompt), used_as, reason in zip(alike.items(), ids, reasons, strict=True)
        if reason is None and not is_for_perplexity(used_as, share=share, seed=seed)
    }
