"""The gate to champion: a report, who stands against whom and a person's word in, one decision out.

Nothing here promotes. The decision becomes an artifact first; only then is the promotion written into the ledger, once
per decision (`core/promotions.py`), so that a crash between the two neither loses nor doubles it.
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import Mode, Promotion, champion_digest, promote, promotions
from dpo_pipeline.core.settings import Settings
from dpo_pipeline.evaluation.conditions import Condition, broken, undecided, warned_of
from dpo_pipeline.evaluation.decision_page import decision_as_markdown
from dpo_pipeline.evaluation.gate import GUARDS, Finding, weigh_again
from dpo_pipeline.evaluation.report import read_report
from dpo_pipeline.evaluation.settings import ChampionSettings, GateSettings
from dpo_pipeline.evaluation.standing import CHAMPION_ROLE, Standing

SCHEMA = "dpo-pipeline/promotion-decision/1"
DECISION_FILE, PAGE_FILE = "decision.json", "decision.md"


class Ruling(StrEnum):
    """What the gate says; the words stand in the ledger, in MLflow and in the UI."""

    PROMOTED = "promoted"
    PROMOTED_BY_HAND = "promoted_by_hand"
    IS_CHAMPION = "is_champion"
    WAITS = "waits_for_a_person"
    NOT_BETTER = "not_better"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"
    BLOCKED = "blocked_by_a_check"
    ROLLED_BACK_BEFORE = "rolled_back_before"

    @property
    def promotes(self) -> bool:
        """Whether the challenger takes the champion's place."""
        return self in {Ruling.PROMOTED, Ruling.PROMOTED_BY_HAND}


class ByHand(Settings):
    """A person's word. Left as it is, the rule decides, or under `promotion: manual` nobody is promoted."""

    promote: bool = False
    """Promote the newest checkpoint by hand, whatever the rule says of it; a broken check still forbids it."""

    reason: str = Field(default="", max_length=2_000)
    """Why, in a sentence that a reader of the ledger will understand in a year; must be given to promote by hand."""

    person: str = Field(default="", max_length=200)
    """Who decides; a name or an account, kept in the ledger for ever."""


def decide_champion(
    standing: Standing,
    conditions: Sequence[Condition],
    out: Path,
    *,
    settings: ChampionSettings,
    by_hand: ByHand,
) -> Outcome:
    """Write `decision.json` and `decision.md`.

    Args:
        standing: Report, challenger and champion.
        conditions: What was examined beside the rule.
        out: An empty folder.
        settings: Whether the rule or a person promotes.
        by_hand: The person's word, if any.

    Raises:
        InputError: If a person promotes without a reason.
        ArtifactError: If the report does not hold the challenger up against today's champion.
    """
    if by_hand.promote and not by_hand.reason.strip():
        raise InputError(
            "a promotion by hand was asked for without a reason",
            expected="a sentence that a reader of the ledger will understand in a year",
            do="Fill in `reason` in the run's config, or give --reason on the command line",
        )
    report = read_report(standing.report.path / "report.json")
    opponent = _opponent(standing, report)
    verdict = report["decisions"][opponent]
    ignored = [name for name in GUARDS if name not in settings.guarded]
    if ignored:
        margins = GateSettings.model_validate(report["settings"]["gate"])
        names = (report["challenger"], opponent)
        verdict = weigh_again(verdict, margins, guarded=settings.guarded, names=names)
    ruling, reason = _rule(standing, conditions, verdict, settings=settings, by_hand=by_hand)
    warnings = [f"{_sentence(each.found)} {_sentence(each.advice)}" for each in warned_of(conditions)]
    decision = {
        "schema": SCHEMA,
        "ruling": ruling.value,
        "promotes": ruling.promotes,
        "reason": reason,
        "warnings": warnings,
        "challenger": standing.challenger,
        "champion": standing.champion,
        "report": standing.report.digest,
        "opponent": opponent,
        "promotion": settings.promotion,
        "by_hand": by_hand.model_dump(mode="json") if by_hand.promote else None,
        "withdrawn": list(standing.withdrawn),
        "verdict": verdict,
        "guarded": [name for name in GUARDS if name in settings.guarded],
        "not_guarded": ignored,
        "rule": report["rule"],
        "conditions": [condition.as_dict() for condition in conditions],
    }
    (out / DECISION_FILE).write_text(
        json.dumps(decision, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
    )
    (out / PAGE_FILE).write_text(decision_as_markdown(decision), encoding="utf-8")
    gain = verdict["gain"]
    facts: dict[str, Any] = {"ruling": ruling.value, "promotes": ruling.promotes, "reason": reason}
    facts |= {"challenger": standing.challenger, "champion_before": standing.champion or "none"}
    if warnings:
        facts["warnings"] = warnings
    if gain["value"] is not None:
        facts |= {"gain": gain["value"], "gain/low": gain["low"], "gain/high": gain["high"]}
    return Outcome(counts={"items_compared": gain["count"]}, facts=facts)


def promotion_of(decision: Artifact) -> Promotion | None:
    """The promotion a champion artifact asks for; None where it promotes nobody."""
    values = json.loads((decision.path / DECISION_FILE).read_text(encoding="utf-8"))
    if not values["promotes"]:
        return None
    hand = values["by_hand"]
    verdict = {"outcome": values["verdict"]["outcome"], "reason": values["verdict"]["reason"]}
    return Promotion(
        values["challenger"],
        values["champion"],
        values["report"],
        decision.digest,
        verdict,
        mode=Mode.AUTO if hand is None else Mode.MANUAL,
        reason="" if hand is None else hand["reason"],
        person="" if hand is None else hand["person"],
    )


def complete_promotion(home: Home) -> str | None:
    """Write the promotion that the newest decision asks for, if a crash came between the two; what was done, in words.

    Safe to repeat. A decision that today's champion has overtaken is left alone: it will never promote.
    """
    line = home.latest_line("champion")
    if line is None:
        return None
    promotion = promotion_of(home.store.get("champion", line["artifact"]))
    if promotion is None or any(change.decision == promotion.decision for change in promotions(home)):
        return None
    if champion_digest(home) != promotion.replaces:
        return None
    promote(home, promotion)
    return f"the decision {promotion.decision} was never followed; champion is now {promotion.challenger}"


def _opponent(standing: Standing, report: Mapping[str, Any]) -> str:
    """The column of the report the challenger is decided against: today's champion, or the baseline if there is none.

    Where the challenger is champion itself there is nothing to decide; the figures against whom it replaced are shown.
    """
    if standing.is_champion or standing.scored == standing.champion:
        # Without a column of its own the champion has the weights of the challenger or of the baseline.
        return CHAMPION_ROLE if CHAMPION_ROLE in report["decisions"] else report["baseline"]
    raise ArtifactError(
        f"the report {standing.report.digest} compares with {standing.scored or 'no champion'}; "
        f"today's champion is {standing.champion or 'none'}",
        expected="a report that holds the challenger up against today's champion",
        do="Materialize evaluation_report again, then champion",
    )


def _rule(
    standing: Standing,
    conditions: Sequence[Condition],
    verdict: Mapping[str, Any],
    *,
    settings: ChampionSettings,
    by_hand: ByHand,
) -> tuple[Ruling, str]:
    """The ruling and why, in the order in which the reasons weigh."""
    if standing.is_champion:
        return Ruling.IS_CHAMPION, "The newest checkpoint is today's champion; nothing changes."
    if standing.has_champions_weights:
        return Ruling.IS_CHAMPION, "The newest checkpoint has the very weights of today's champion; nothing changes."
    if faults := broken(conditions):
        return Ruling.BLOCKED, " ".join(f"{_sentence(each.found)} {_sentence(each.advice)}" for each in faults)
    if by_hand.promote:
        return (
            Ruling.PROMOTED_BY_HAND,
            f"By hand: {_sentence(by_hand.reason.strip())} The rule says: {verdict['reason']}",
        )
    return _by_rule(standing, conditions, verdict, settings)


def _by_rule(
    standing: Standing, conditions: Sequence[Condition], verdict: Mapping[str, Any], settings: ChampionSettings
) -> tuple[Ruling, str]:
    """The ruling where no person has spoken."""
    if unknown := undecided(conditions):
        return Ruling.BLOCKED, " ".join(_sentence(each.found) for each in unknown)
    finding = Finding(verdict["outcome"])
    if finding is not Finding.BETTER:
        return Ruling(finding.value), verdict["reason"]
    if standing.withdrawn:
        last = _sentence(standing.withdrawn[-1])
        reason = "The rule would promote it, but it was champion and its place was taken away: "
        return Ruling.ROLLED_BACK_BEFORE, f"{reason}{last} Only a person can promote it."
    if settings.promotion == "manual":
        return (
            Ruling.WAITS,
            f"{verdict['reason']} Promotion is manual: materialize `champion` with `promote` and a reason.",
        )
    return Ruling.PROMOTED, verdict["reason"]


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."
