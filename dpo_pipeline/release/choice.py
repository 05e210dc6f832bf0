"""What is released: today's champion with the report and the pairs it was promoted on.

Before the first promotion, and after a withdrawal, it is the newest checkpoint, and card and facts say that nobody
promoted it. A challenger that was not promoted changes nothing: the release stays that of the champion, to the byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest, promotions


@dataclass(frozen=True, slots=True)
class Choice:
    """What a release is made from, by role, and what its card says of the promotion."""

    inputs: Mapping[str, Artifact]
    promotion: Mapping[str, Any]


def choose_release(home: Home) -> Choice:
    """The champion, or the newest checkpoint where there is none.

    Raises:
        ArtifactError: If something it is made from is not there.
    """
    digest = champion_digest(home)
    if digest is None:
        promotion = {"promoted": False, "reason": _why_nobody(home)}
        return Choice(_inputs(home, home.latest("evaluation_report"), home.latest(CHAMPION_KIND)), promotion)
    change = next(
        each for each in reversed(promotions(home)) if each.champion == digest and each.is_promotion and each.report
    )
    promotion = {
        "promoted": True,
        "mode": change.mode.value,
        "reason": change.reason or str(change.verdict.get("reason", "")),
    }
    report = home.store.get("evaluation_report", str(change.report))
    return Choice(_inputs(home, report, home.store.get(CHAMPION_KIND, digest)), promotion)


def _why_nobody(home: Home) -> str:
    """Why there is no champion: who was is withdrawn, or what the gate said of the newest checkpoint."""
    history = promotions(home)
    if history and history[-1].is_withdrawal:
        return f"The champion {history[-1].before} was withdrawn: {history[-1].reason}"
    decision = home.latest_line("champion")
    facts = {} if decision is None else home.store.get("champion", decision["artifact"]).facts
    return str(facts.get("reason", "The gate has not been asked."))


def _inputs(home: Home, report: Artifact, checkpoint: Artifact) -> dict[str, Artifact]:
    pairs = next(parent for parent in checkpoint.parents if parent.kind == "preference_pairs")
    return {
        CHAMPION_KIND: checkpoint,
        "evaluation_report": report,
        "preference_pairs": home.store.get(pairs.kind, pairs.digest),
    }
