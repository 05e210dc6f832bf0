"""Who is champion, since when and why: the ledger's lines `promoted`, `rolled_back` and `withdrawn`.

The history is a stack. A promotion puts a checkpoint on top, a rollback takes the top off, a withdrawal takes all off,
and the champion is what lies on top. MLflow's alias follows it and may lag or be edited; a decision is never taken from
the alias.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError, InputError, LedgerError
from dpo_pipeline.core.home import Home

PROMOTED, ROLLED_BACK, WITHDRAWN = "promoted", "rolled_back", "withdrawn"
CHAMPION_KIND = "dpo_checkpoint"


class Mode(StrEnum):
    """Who promoted: the stated rule, or a person with a reason."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion rests on.

    Attributes:
        challenger: Digest of the checkpoint that becomes champion.
        replaces: Digest of the champion it was compared with; None for the first, which is compared with SFT.
        report: Digest of the evaluation_report with the figures.
        decision: Digest of the champion artifact that holds the decision; it promotes once and never again.
        verdict: The rule's outcome and its reason in a sentence.
        mode: The rule or a person.
        reason: The person's reason; empty under the rule.
        person: Who gave it; empty under the rule.
    """

    challenger: str
    replaces: str | None
    report: str
    decision: str
    verdict: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = Mode.AUTO
    reason: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history: from when on, which checkpoint is champion (None: none), in place of which, and why."""

    seq: int
    time: str
    event: str
    champion: str | None
    before: str | None
    reason: str
    person: str
    mode: Mode
    report: str | None = None
    decision: str | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_rollback(self) -> bool:
        """Whether it went back to an earlier champion."""
        return self.event == ROLLED_BACK

    @property
    def is_withdrawal(self) -> bool:
        """Whether nobody is champion from then on."""
        return self.event == WITHDRAWN

    @property
    def is_promotion(self) -> bool:
        """Whether a challenger became champion."""
        return self.event == PROMOTED


def promotions(home: Home) -> list[Change]:
    """Every promotion, rollback and withdrawal, oldest first.

    Raises:
        LedgerError: At a line of these events that lacks what they hold.
    """
    return [_change(line) for line in home.ledger.lines() if line["event"] in {PROMOTED, ROLLED_BACK, WITHDRAWN}]


def champions(home: Home) -> list[str]:
    """Digests of the champions a rollback could return to, and last of today's; empty before the first promotion.

    Law: a rollback undoes the promotion before it that is not yet undone; behind a withdrawal nothing goes back.
    """
    stack: list[str] = []
    for change in promotions(home):
        if change.is_withdrawal or change.champion is None:
            stack.clear()
        elif change.is_rollback:
            del stack[-1:]
        else:
            stack.append(change.champion)
    return stack


def champion_digest(home: Home) -> str | None:
    """The digest of today's champion; None before the first promotion."""
    return next(reversed(champions(home)), None)


def current_champion(home: Home) -> Artifact | None:
    """Today's champion, a dpo_checkpoint; None before the first promotion.

    Raises:
        ArtifactError: If its folder is gone.
    """
    digest = champion_digest(home)
    return None if digest is None else home.store.get(CHAMPION_KIND, digest)


def rollbacks_of(home: Home, digest: str) -> list[Change]:
    """The rollbacks and withdrawals that took this checkpoint's place away, oldest first."""
    return [change for change in promotions(home) if not change.is_promotion and change.before == digest]


def promote(home: Home, promotion: Promotion) -> Change:
    """Write the promotion into the ledger, once per decision; asked again, the line already there is returned.

    Raises:
        InputError: If a person promotes without a reason.
        ArtifactError: If today's champion is no longer the one the decision was taken against, or the challenger is
            not there.
    """
    if promotion.mode is Mode.MANUAL:
        _assert_reason(promotion.reason, "promotion by hand")
    with home.alone("promotions"):  # between reading the history and adding to it
        for change in promotions(home):
            if change.decision == promotion.decision:
                return change
        champion = champion_digest(home)
        if champion != promotion.replaces:
            raise ArtifactError(
                f"the decision {promotion.decision} was taken against {promotion.replaces or 'no champion'}; "
                f"today's champion is {champion or 'none'}",
                expected="a decision against today's champion",
                do="Materialize evaluation_report and champion again",
            )
        home.store.get(CHAMPION_KIND, promotion.challenger)
        line = home.ledger.append(
            PROMOTED,
            challenger=promotion.challenger,
            replaces=promotion.replaces,
            report=promotion.report,
            decision=promotion.decision,
            verdict=dict(promotion.verdict),
            mode=promotion.mode.value,
            reason=promotion.reason.strip(),
            person=promotion.person.strip(),
        )
    return _change(line)


def roll_back(home: Home, *, reason: str, person: str) -> Change:
    """Make the champion before today's one champion again, and say so in the ledger.

    Raises:
        InputError: Without a reason, or if there is no champion to go back to.
        ArtifactError: If that champion's folder is gone; then nothing changes.
    """
    _assert_reason(reason, "rollback")
    with home.alone("promotions"):  # between reading the history and adding to it
        stack = champions(home)
        if len(stack) < 2:
            found = "there has never been a champion" if not stack else f"{stack[-1]} is the first champion"
            raise InputError(
                f"{found}, so there is none to go back to",
                expected="two promotions that were not rolled back",
                do="Look at `dpo-pipeline champion history`; `champion withdraw` leaves no champion at all",
            )
        *_, before, withdrawn = stack
        home.store.get(CHAMPION_KIND, before)
        line = home.ledger.append(
            ROLLED_BACK, to=before, withdrawn=withdrawn, reason=reason.strip(), person=person.strip()
        )
    return _change(line)


def withdraw(home: Home, *, reason: str, person: str) -> Change:
    """Leave no champion at all, and say so in the ledger; the next challenger is compared with SFT, as the first was.

    Raises:
        InputError: Without a reason, or if there is no champion.
    """
    _assert_reason(reason, "withdrawal")
    with home.alone("promotions"):  # between reading the history and adding to it
        champion = champion_digest(home)
        if champion is None:
            raise InputError(
                "there is no champion, so there is none to withdraw",
                expected="a promotion that stands",
                do="Look at `dpo-pipeline champion history`",
            )
        line = home.ledger.append(WITHDRAWN, withdrawn=champion, reason=reason.strip(), person=person.strip())
    return _change(line)


def _assert_reason(reason: str, what: str) -> None:
    if not reason.strip():
        raise InputError(
            f"a {what} was asked for without a reason",
            expected="a sentence that a reader of the ledger will understand in a year",
            do="Give it as `reason` in the run's config, or as --reason on the command line",
        )


def _change(line: Mapping[str, Any]) -> Change:
    try:
        return _as_change(line)
    except (KeyError, ValueError) as error:
        raise LedgerError(
            f"the ledger's line {line.get('seq')} is no {line['event']!r} line: {error} does not fit",
            do="Run `dpo-pipeline lineage verify`; the ledger must never be edited",
        ) from error


def _as_change(line: Mapping[str, Any]) -> Change:
    same = {"seq": line["seq"], "time": line["time"], "event": line["event"]}
    words = {"reason": line["reason"], "person": line["person"]}
    if line["event"] == ROLLED_BACK:
        return Change(**same, **words, champion=line["to"], before=line["withdrawn"], mode=Mode.MANUAL)
    if line["event"] == WITHDRAWN:
        return Change(**same, **words, champion=None, before=line["withdrawn"], mode=Mode.MANUAL)
    return Change(
        **same,
        **words,
        champion=line["challenger"],
        before=line["replaces"],
        mode=Mode(line["mode"]),
        report=line["report"],
        decision=line["decision"],
        verdict=line["verdict"],
    )
