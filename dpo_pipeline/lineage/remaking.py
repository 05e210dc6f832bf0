"""How each kind of artifact is made, called with what its manifest says: the graph's steps without the graph."""

import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.promotions import CHAMPION_KIND
from dpo_pipeline.lineage.chain import Node, parents_of_kind
from dpo_pipeline.lineage.records import TABLES

TRAININGS = ("sft_checkpoint", "reference_logprobs", "dpo_checkpoint")
ROOMS = {
    **dict.fromkeys(TABLES, "annotations"),
    **dict.fromkeys(("pair_sketches", "preference_pairs", "annotator_report"), "preferences"),
    "sft_checkpoint": "sft",
    "reference_logprobs": "dpo",
    "dpo_checkpoint": "dpo",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an artifact is made again from: its node, where to write, and the threads a training used."""

    home: Home
    node: Node
    out: Path
    work: Path
    threads: int | None
    reporter: Reporter

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the manifest."""
        return self.node.artifact.manifest["settings"]

    def parsed(self, section: str) -> Any:
        """One section of them as the stage's settings class.

        Raises:
            ArtifactError: If the manifest does not have it.
        """
        if section not in self.settings:
            raise ArtifactError(f"the manifest of {self.node.artifact.path} has no settings {section}")
        module, name = SECTIONS[section]
        found = getattr(importlib.import_module(module), name).parse(self.settings[section], where="the manifest")
        if section == "compute" and self.threads is not None:
            found = found.model_copy(update={"threads": self.threads})
        return found

    def all(self, kind: str) -> list[Path]:
        """The folders of the inputs of a kind, in the order read."""
        return [parent.artifact.path for parent in parents_of_kind(self.node, kind)]

    def one(self, kind: str) -> Path:
        """The folder of the only input of a kind.

        Raises:
            ArtifactError: If it is not there.
        """
        found = self.all(kind)
        if not found:
            raise ArtifactError(f"{self.node.artifact.path} names no {kind} that can be read")
        return found[0]


SECTIONS = {
    "annotations": ("dpo_pipeline.annotations.settings", "AnnotationSettings"),
    "preferences": ("dpo_pipeline.preferences.settings", "PreferenceSettings"),
    "sft": ("dpo_pipeline.sft.settings", "SftSettings"),
    "dpo": ("dpo_pipeline.dpo.settings", "DpoSettings"),
    "model": ("dpo_pipeline.modeling.settings", "ModelSettings"),
    "compute": ("dpo_pipeline.modeling.settings", "ComputeSettings"),
}


def code_version_of(kind: str) -> str:
    """The code version of the room that makes a kind, as it is here."""
    return importlib.import_module(f"dpo_pipeline.{ROOMS[kind]}").CODE_VERSION


def read_again(inputs: Inputs) -> Outcome:
    """One of the three tables of a drop; the other two are written as well and left."""
    from dpo_pipeline.annotations.forgotten import SETTING, Forgotten
    from dpo_pipeline.annotations.read import read_drop

    if not (inputs.home.root / "keys" / "pseudonym.key").exists():
        raise ArtifactError("keys/pseudonym.key is gone, and with it the pseudonyms")
    out = {kind: inputs.work / kind for kind in TABLES}
    for path in out.values():
        path.mkdir()
    outcomes = read_drop(
        inputs.one("raw_annotations"),
        drop=str(inputs.settings.get("drop")),
        settings=inputs.parsed("annotations"),
        pseudonym_key=inputs.home.pseudonym_key(),
        judgments=out["judgments"],
        rejected=out["rejected_records"],
        demonstrations=out["demonstrations"],
        reporter=inputs.reporter,
        forgotten=Forgotten.parse(inputs.settings.get(SETTING, {}), where="the manifest"),
    )
    kind = inputs.node.artifact.kind
    shutil.copytree(out[kind], inputs.out, dirs_exist_ok=True)
    return dict(zip(TABLES, (outcomes.judgments, outcomes.demonstrations, outcomes.rejected), strict=True))[kind]


def sketch_again(inputs: Inputs) -> Outcome:
    """The sketches of a drop."""
    from dpo_pipeline.preferences.sketch import sketch_drop

    settings = inputs.parsed("preferences")
    return sketch_drop(
        inputs.one("judgments"),
        inputs.out,
        demonstrations=inputs.one("demonstrations"),
        settings=settings,
        reporter=inputs.reporter,
    )


def build_again(inputs: Inputs) -> Outcome:
    """The pairs of all drops, without what an earlier build knew."""
    from dpo_pipeline.preferences.build import build_pairs

    return build_pairs(_drops(inputs), inputs.out, settings=inputs.parsed("preferences"), reporter=inputs.reporter)


def report_again(inputs: Inputs) -> Outcome:
    """The annotator report."""
    from dpo_pipeline.preferences.annotators import report_annotators

    pairs, settings = inputs.one("preference_pairs"), inputs.parsed("preferences")
    return report_annotators(_drops(inputs), pairs, inputs.out, settings=settings, reporter=inputs.reporter)


def tune_again(inputs: Inputs) -> Outcome:
    """Supervised fine-tuning, from its first step, from where it began."""
    from dpo_pipeline.sft.train import train_sft

    goes_on = any(parent.kind == CHAMPION_KIND for parent in inputs.node.artifact.parents)
    return train_sft(
        inputs.all("demonstrations"),
        inputs.one("preference_pairs"),
        inputs.out,
        work=inputs.work / "checkpoints",
        start=inputs.one(CHAMPION_KIND) if goes_on else None,
        sft=inputs.parsed("sft"),
        model=inputs.parsed("model"),
        compute=inputs.parsed("compute"),
        reporter=inputs.reporter,
    )


def score_again(inputs: Inputs) -> Outcome:
    """The reference table, no row taken over."""
    from dpo_pipeline.dpo.reference import compute_reference

    return compute_reference(
        inputs.one("preference_pairs"),
        inputs.one("sft_checkpoint"),
        inputs.out,
        known=[],
        model=inputs.parsed("model"),
        compute=inputs.parsed("compute"),
        reporter=inputs.reporter,
    )


def prefer_again(inputs: Inputs) -> Outcome:
    """Direct preference optimization, from its first step."""
    from dpo_pipeline.dpo.train import train_dpo

    return train_dpo(
        inputs.one("preference_pairs"),
        inputs.one("reference_logprobs"),
        inputs.one("sft_checkpoint"),
        inputs.out,
        work=inputs.work / "checkpoints",
        dpo=inputs.parsed("dpo"),
        model=inputs.parsed("model"),
        compute=inputs.parsed("compute"),
        reporter=inputs.reporter,
    )


REMAKERS: Mapping[str, Callable[[Inputs], Outcome]] = {
    **dict.fromkeys(TABLES, read_again),
    "pair_sketches": sketch_again,
    "preference_pairs": build_again,
    "annotator_report": report_again,
    "sft_checkpoint": tune_again,
    "reference_logprobs": score_again,
    "dpo_checkpoint": prefer_again,
}


def _drops(inputs: Inputs) -> Any:
    """The drops of a table in the order its manifest names them."""
    from dpo_pipeline.preferences.build import DropTables

    judged = parents_of_kind(inputs.node, "judgments")
    sketched = parents_of_kind(inputs.node, "pair_sketches")
    names = [parent.role.partition("/")[2] for parent in inputs.node.artifact.parents if parent.kind == "judgments"]
    if not len(names) == len(judged) == len(sketched):
        raise ArtifactError(f"{inputs.node.artifact.path} has inputs that cannot be read")
    return [
        DropTables(name=name, judgments=one.artifact.path, sketches=other.artifact.path)
        for name, one, other in zip(names, judged, sketched, strict=True)
    ]
