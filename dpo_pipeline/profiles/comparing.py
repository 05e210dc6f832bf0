"""Checkpoints of a home looked at under a profile: any two compared as in a report, any one on benchmarks."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import digest_of_json, short
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.benchmarks import BenchmarkRow, require_harness, run_benchmarks
from dpo_pipeline.evaluation.evaluate import Panel, weigh
from dpo_pipeline.evaluation.hearing import Circumstances
from dpo_pipeline.evaluation.held_out import read_held_out
from dpo_pipeline.evaluation.memory import Memory
from dpo_pipeline.evaluation.report import read_report
from dpo_pipeline.evaluation.settings import BenchmarkSettings
from dpo_pipeline.evaluation.speakers import speaking
from dpo_pipeline.evaluation.training import demonstrations_of
from dpo_pipeline.evaluation.voices import Voice
from dpo_pipeline.lineage.subjects import CHAMPION, find_all
from dpo_pipeline.profiles import Profile
from dpo_pipeline.profiles.belonging import refuse_other_profile
from dpo_pipeline.sft.demonstrations import Demonstrations

CHECKPOINTS = ("sft_checkpoint", "dpo_checkpoint")
KNOWN_REPORTS = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it: the values of report.json, and the folder with page, picture and tables."""

    report: dict[str, Any]
    folder: Path


def compare_checkpoints(
    home: Home, first: str, second: str, *, name: str, profile: Profile, reporter: Reporter, out: Path | None = None
) -> Comparison:
    """Score, let reply and judge two checkpoints on the newest held-out set; the first is the baseline.

    It is a look and no evidence: nothing of it goes into the ledger, and no promotion rests on it.

    Args:
        home: Whose checkpoints and tables.
        first: The baseline, also the reference of the implicit reward: an asset, kind/digest or alias.
        second: The challenger.
        name: The profile's name or path.
        profile: What is measured and how, and on which machine.
        reporter: Hears of progress.
        out: Folder written into, new or empty; absent: `comparisons/<first>-<second>` under the home, made anew.

    Raises:
        InputError: If both are the same checkpoint, or there is something in `out`.
        ArtifactError: If a subject is no checkpoint, its files are not what was published, or another profile made it
            from another model.
    """
    pair = [checkpoint_of(home, subject, name=name, profile=profile) for subject in (first, second)]
    if pair[0].digest == pair[1].digest:
        raise InputError(
            f"{first} and {second} are the same checkpoint, {pair[0].digest}",
            expected="two different ones",
            do="`dpo-pipeline lineage show dpo_checkpoint` prints digests; earlier ones lie under artifacts/",
        )
    labels = [_label(subject, artifact) for subject, artifact in zip((first, second), pair, strict=True)]
    folder = _empty_folder(out, default=home.root / "comparisons" / "-".join(short(each.digest) for each in pair))
    demonstrations = [_demonstrations(home, artifact) for artifact in pair]
    settings = profile.evaluation
    held_out = read_held_out(
        home.latest("preference_pairs").path,
        None,
        prompt_count=settings.generation_count,
        learned=[conversation for each in demonstrations for conversation in each.train],
        reporter=reporter,
    )
    known = home.all_made("evaluation_report")[:KNOWN_REPORTS]
    memory = Memory([artifact.path for artifact in known if not artifact.verify()])
    weigh(
        Panel(
            [Voice(label, artifact.path) for label, artifact in zip(labels, pair, strict=True)],
            baseline=labels[0],
            challenger=labels[1],
            opponents=labels[:1],
            notes=["This page was asked for by hand: it stands in no ledger, and no promotion rests on it."],
        ),
        held_out,
        _kept_aside_by_both(demonstrations)[: settings.demonstration_count],
        folder,
        work=home.root / "work" / "comparisons",
        beta=profile.dpo.beta,
        where=Circumstances(settings, profile.model, profile.compute, memory, reporter),
    )
    return Comparison(read_report(folder / "report.json"), folder)


def checkpoint_of(home: Home, subject: str, *, name: str, profile: Profile) -> Artifact:
    """The checkpoint a subject names, re-hashed, and of the model that the profile speaks of.

    Raises:
        ArtifactError: If it is none, its files are not what was published, or another profile made it from another
            model: template, length and precision would not be those it was trained with.
    """
    artifact = find_all(home, subject)[-1]
    if artifact.kind not in CHECKPOINTS:
        raise ArtifactError(
            f"{subject} is a {artifact.kind}",
            expected=" or ".join(CHECKPOINTS),
            do="Name a checkpoint by its asset, as kind/digest, or as champion",
        )
    if faults := artifact.verify():
        raise ArtifactError(
            f"{subject} is not what was published: {'; '.join(faults)}",
            expected=f"the files of {artifact.kind} {artifact.digest} as its manifest lists them",
            do="Restore them from a backup, or materialize it again",
        )
    advice = "Name the profile it was trained under with --profile"
    refuse_other_profile(home, artifact, name=name, profile=profile, sections=("model",), do=advice)
    return artifact


def _empty_folder(out: Path | None, *, default: Path) -> Path:
    """The folder to write into; only the default one, which is ours, is ever cleared."""
    if out is None:
        shutil.rmtree(default, ignore_errors=True)
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"there are files in {out}", expected="a new or an empty folder", do="Name another --out")
    folder = out or default
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _label(subject: str, artifact: Artifact) -> str:
    """A short name for the page: `champion` if that was typed, else the stage and eight digits."""
    if subject == CHAMPION:
        return subject
    return f"{artifact.kind.removesuffix('_checkpoint')} {artifact.digest[:8]}"


def _demonstrations(home: Home, checkpoint: Artifact) -> Demonstrations:
    """What the SFT behind a checkpoint learned from and kept aside."""
    sft = checkpoint
    if checkpoint.kind != "sft_checkpoint":
        parent = next(each for each in checkpoint.parents if each.kind == "sft_checkpoint")
        sft = home.store.get(parent.kind, parent.digest)
    parents = {
        kind: [each for each in sft.parents if each.kind == kind] for kind in ("demonstrations", "preference_pairs")
    }
    folders = {kind: [home.store.get(each.kind, each.digest).path for each in found] for kind, found in parents.items()}
    return demonstrations_of(sft.path, folders["demonstrations"], folders["preference_pairs"][0])


def _kept_aside_by_both(demonstrations: list[Demonstrations]) -> list[Any]:
    """Held-out conversations that neither has learned from, each once."""
    learned = {digest_of_json(talk) for each in demonstrations for talk in each.train}
    kept = {digest_of_json(talk): talk for each in demonstrations for talk in each.held_out}
    return [talk for digest, talk in kept.items() if digest not in learned]


def benchmark_checkpoint(
    home: Home, subject: str, *, settings: BenchmarkSettings, name: str, profile: Profile, reporter: Reporter
) -> list[BenchmarkRow]:
    """One checkpoint on standard benchmarks; nothing of it goes into the ledger.

    Raises:
        CapacityError: If lm-eval is not installed.
        ArtifactError: If the subject is no checkpoint, its files are not what was published, or another profile made
            it from another model.
        InputError: If a task cannot be run.
    """
    require_harness()
    artifact = checkpoint_of(home, subject, name=name, profile=profile)
    with speaking(
        Voice(subject, artifact.path),
        max_length=profile.model.max_length,
        compute=profile.compute,
        settings=profile.evaluation,
        reporter=reporter,
    ) as speaker:
        batch = profile.evaluation.generation_batch_size
        return run_benchmarks(
            speaker.model, speaker.tokenizer, settings=settings, batch_size=batch, reporter=reporter
        ).rows
