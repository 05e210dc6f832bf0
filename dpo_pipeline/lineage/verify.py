"""Re-prove a chain: every check of the audit in order, from what the ledger claims to what the tables hold."""

from collections.abc import Callable, Mapping, Sequence

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.lineage.attestations import check_signatures
from dpo_pipeline.lineage.chain import Node, ancestors, chains_of, with_rejected
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.demonstrated import check_demonstrated
from dpo_pipeline.lineage.evidence import check_attempts, check_environment, check_files, check_ledger
from dpo_pipeline.lineage.forgotten import check_forgotten
from dpo_pipeline.lineage.promoted import check_promotions
from dpo_pipeline.lineage.records import check_annotators, check_books, check_rows
from dpo_pipeline.lineage.results import check_figures, check_near_leaks, check_split, check_training_rows
from dpo_pipeline.lineage.witnesses import check_views

ChainCheck = Callable[..., Check]
"""Takes home and nodes; those of `SEARCHES` a reporter as well."""


CHECKS: Sequence[ChainCheck] = (
    check_files,
    check_attempts,
    check_books,
    check_rows,
    check_annotators,
    check_forgotten,
    check_split,
    check_near_leaks,
    check_demonstrated,
    check_training_rows,
    check_figures,
    check_promotions,
    check_environment,
    check_signatures,
    check_views,
)
"""Each is one sentence of the audit; where files are not what was published, the later ones still say what they can."""
SEARCHES = (check_near_leaks, check_figures)
"""Those that search for near copies, which takes long where many prompts are made from one template."""


def verify(
    home: Home, subject: str, *, again: Callable[[str], None] | None = None, reporter: Reporter | None = None
) -> list[Check]:
    """Run every check on the chain behind `subject`.

    Args:
        home: Where the chain lies.
        subject: What it leads to, as `subjects.find_all` understands it.
        again: Tables and trainings are made again as well, which takes as long as making them did; hears how far it is.
        reporter: Told now and then how far a long search for near copies is.

    A ledger that cannot be read or a subject that is gone is a fault, not an error: the audit is for such days.

    Raises:
        ArtifactError: If nothing ever bore the subject's name.
    """
    ledger = check_ledger(home)
    if ledger.faults and not _is_readable(home):
        return [ledger]
    nodes = with_rejected(home, ancestors(*chains_of(home, subject)))
    checks = [ledger, *(_performed(check, home, nodes, reporter) for check in CHECKS)]
    if again is not None:
        from dpo_pipeline.lineage.rebuild import rebuild

        checks += rebuild(home, nodes, again)
    return checks


SHOWN_FAULTS = 20
"""Faults of one check that are listed in a terminal."""


def verdict(checks: Sequence[Check]) -> str:
    """FAIL if a check found a fault, INCOMPLETE if one did not run, else PASS."""
    outcomes = {check.outcome for check in checks}
    return "FAIL" if "fault" in outcomes else "INCOMPLETE" if "not run" in outcomes else "PASS"


def as_text(checks: Sequence[Check]) -> str:
    """The verdict first, then each check with its faults, or why it did not run."""
    words = {"fault": "FAULT  ", "not run": "not run", "ok": "ok     "}
    lines = [f"{verdict(checks)}\n"]
    for check in checks:
        looked = f"  ({check.looked_at})" if check.looked_at else ""
        lines.append(f"  {words[check.outcome]}  {check.name}{looked}")
        lines += [f"             {fault}" for fault in check.faults[:SHOWN_FAULTS]]
        more = len(check.faults) - SHOWN_FAULTS
        lines += [f"             and {more:,} more; --json lists all"] if more > 0 else []
        lines += [f"             {check.not_run}"] if check.not_run and not check.faults else []
        lines += [f"             note: {note}" for note in check.notes]
    return "\n".join(lines)


def _is_readable(home: Home) -> bool:
    try:
        return sum(1 for _ in home.ledger.lines()) >= 0
    except PipelineError:
        return False


def _performed(check: ChainCheck, home: Home, nodes: Mapping[str, Node], reporter: Reporter | None) -> Check:
    """A check's answer; what it trips over in an altered table is a fault it found, with the place it stopped at."""
    try:
        return check(home, nodes, reporter) if check in SEARCHES else check(home, nodes)
    except Exception as error:  # noqa: BLE001 - an altered file may break any reader, and the audit must go on
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return Check(name, "", (f"the check stopped at something it cannot read: {type(error).__name__}: {error}",))
