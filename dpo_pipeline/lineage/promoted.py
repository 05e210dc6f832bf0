"""The check of promotions: that of each checkpoint in the chain rests on a decision that is there and says the same."""

from collections.abc import Iterator, Mapping

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, Change, promotions
from dpo_pipeline.lineage.chain import Node
from dpo_pipeline.lineage.checks import Check

NAME = "promotions rest on decisions that say the same"
DECISION_KIND, REPORT_KIND = "champion", "evaluation_report"


def check_promotions(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether ledger, decision and report of every promotion of a checkpoint in the chain tell one story."""
    try:
        history = promotions(home)
    except PipelineError as error:
        return Check(NAME, "the promotion history", (str(error),))
    here = [change for change in history if change.champion in nodes and change.is_promotion]
    faults = [fault for change in here for fault in _faults(home, change)]
    return Check(NAME, f"{len(here)} of {len(history)} changes put a checkpoint of this chain in place", tuple(faults))


def _faults(home: Home, change: Change) -> Iterator[str]:
    from dpo_pipeline.evaluation.champion import promotion_of

    where = f"ledger line {change.seq + 1}, the promotion of {CHAMPION_KIND} {change.champion},"
    try:
        decision = home.store.get(DECISION_KIND, str(change.decision))
        report = home.store.get(REPORT_KIND, str(change.report))
        promotion = promotion_of(decision)
    except (PipelineError, OSError, ValueError, KeyError, TypeError) as error:
        yield f"{where} rests on what cannot be read: {error}"
        return
    yield from (*decision.verify(), *report.verify())
    if promotion is None:
        yield f"{where} rests on {decision.path}, which promotes nobody"
        return
    said = {
        "champion": (change.champion, promotion.challenger),
        "the champion before": (change.before, promotion.replaces),
        "the report": (change.report, promotion.report),
        "the verdict": (dict(change.verdict), dict(promotion.verdict)),
        "who decided": (change.mode, promotion.mode),
        "the reason": (change.reason, promotion.reason.strip()),
        "the person": (change.person, promotion.person.strip()),
    }
    for name, (claimed, found) in said.items():
        if claimed != found:
            yield f"{where} says {name} is {claimed}, its decision {decision.path} says {found}"
    measured = {parent.digest for parent in report.parents if parent.kind == CHAMPION_KIND}
    if change.champion not in measured:
        yield f"{where} names the report {report.path}, which measured {', '.join(sorted(measured)) or 'no checkpoint'}"
