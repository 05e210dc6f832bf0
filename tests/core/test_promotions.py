"""The promotion history: a stack in the ledger, one line per decision, a reason wherever a person decides."""

import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError, LedgerError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import (
    Mode,
    Promotion,
    champion_digest,
    champions,
    current_champion,
    promote,
    promotions,
    roll_back,
    rollbacks_of,
    withdraw,
)


def checkpoint(home, name):
    """Publish a checkpoint that holds its own name; its digest."""
    with home.store.staging() as folder:
        (folder / "weights").write_text(name)
        return home.store.publish(folder, Recipe("dpo_checkpoint", "1", {"name": name}, ()), Outcome()).digest


def promotion_of(home, challenger, decision, **others):
    return Promotion(challenger, champion_digest(home), "report-digest", decision, {"outcome": "better"}, **others)


def test_the_first_promotion_replaces_nobody_and_the_next_replaces_it(home):
    assert (promotions(home), current_champion(home)) == ([], None)
    first, second = checkpoint(home, "first"), checkpoint(home, "second")
    promote(home, promotion_of(home, first, "one"))
    assert current_champion(home) == home.store.get("dpo_checkpoint", first)
    promote(home, promotion_of(home, second, "two", mode=Mode.MANUAL, reason=" reads better ", person="Ada"))
    assert [(each.event, each.champion, each.before) for each in promotions(home)] == [
        ("promoted", first, None),
        ("promoted", second, first),
    ]
    assert [(each.mode, each.reason, each.person) for each in promotions(home)] == [
        (Mode.AUTO, "", ""),
        (Mode.MANUAL, "reads better", "Ada"),
    ]
    assert promotions(home)[0].verdict == {"outcome": "better"}
    assert home.ledger.verify() == []


def test_a_decision_promotes_once_also_after_it_was_rolled_back(home):
    first, second = checkpoint(home, "first"), checkpoint(home, "second")
    promote(home, promotion_of(home, first, "one"))
    decision = promotion_of(home, second, "two")
    assert promote(home, decision) == promote(home, decision)
    roll_back(home, reason="it insults customers", person="Ada")
    promote(home, decision)
    assert champion_digest(home) == first
    assert len(promotions(home)) == 3


def test_a_decision_against_yesterdays_champion_is_refused_with_both_names(home):
    first, second, third = (checkpoint(home, name) for name in ("first", "second", "third"))
    promote(home, promotion_of(home, first, "one"))
    stale = promotion_of(home, third, "three")
    promote(home, promotion_of(home, second, "two"))
    with pytest.raises(ArtifactError, match=f"taken against {first}; today's champion is {second}"):
        promote(home, stale)
    assert champion_digest(home) == second


def test_two_rollbacks_go_back_two_champions_and_a_third_is_refused(home):
    digests = [checkpoint(home, name) for name in ("first", "second", "third")]
    for digest in digests:
        promote(home, promotion_of(home, digest, f"decision on {digest}"))
    assert roll_back(home, reason="worse in production", person="Ada").champion == digests[1]
    assert roll_back(home, reason="this one too", person="Ada").champion == digests[0]
    with pytest.raises(InputError, match="is the first champion, so there is none to go back to"):
        roll_back(home, reason="and this one", person="Ada")
    assert [change.reason for change in rollbacks_of(home, digests[2])] == ["worse in production"]
    promote(home, promotion_of(home, digests[2], "looked at again"))
    assert champions(home) == [digests[0], digests[2]]


def test_a_withdrawal_leaves_nobody_and_nothing_to_go_back_to(home):
    first, second, third = (checkpoint(home, name) for name in ("first", "second", "third"))
    with pytest.raises(InputError, match="there is no champion, so there is none to withdraw"):
        withdraw(home, reason="it insults customers", person="Ada")
    for digest in (first, second):
        promote(home, promotion_of(home, digest, f"decision on {digest}"))
    change = withdraw(home, reason=" it insults customers ", person="Ada")
    assert (change.event, change.champion, change.before) == ("withdrawn", None, second)
    assert (change.reason, change.person, change.mode) == ("it insults customers", "Ada", Mode.MANUAL)
    assert (champions(home), current_champion(home)) == ([], None)
    assert [each.reason for each in rollbacks_of(home, second)] == ["it insults customers"]
    with pytest.raises(InputError, match="so there is none to go back to"):
        roll_back(home, reason="no", person="Ada")
    assert promote(home, promotion_of(home, third, "three")).before is None
    assert champions(home) == [third]
    assert home.ledger.verify() == []


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_person_who_gives_no_reason_is_refused(home, reason):
    first = checkpoint(home, "first")
    with pytest.raises(InputError, match="promotion by hand was asked for without a reason"):
        promote(home, promotion_of(home, first, "one", mode=Mode.MANUAL, reason=reason))
    with pytest.raises(InputError, match="rollback was asked for without a reason"):
        roll_back(home, reason=reason, person="Ada")
    with pytest.raises(InputError, match="withdrawal was asked for without a reason"):
        withdraw(home, reason=reason, person="Ada")
    assert promotions(home) == []


def test_a_champion_whose_folder_is_gone_is_not_gone_back_to(home):
    first, second = checkpoint(home, "first"), checkpoint(home, "second")
    for digest in (first, second):
        promote(home, promotion_of(home, digest, f"decision on {digest}"))
    shutil.rmtree(home.store.path_of("dpo_checkpoint", first))
    with pytest.raises(ArtifactError, match=first):
        roll_back(home, reason="worse", person="Ada")
    assert champion_digest(home) == second


def test_processes_that_promote_the_same_decision_at_once_write_one_line(home):
    first = checkpoint(home, "first")
    code = (
        "import sys; from pathlib import Path\n"
        "from dpo_pipeline.core.home import Home; from dpo_pipeline.core.promotions import Promotion, promote\n"
        "promote(Home(Path(sys.argv[1])), Promotion(sys.argv[2], None, 'report', 'decision'))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(home.root), first]) for _ in range(4)]
    assert [worker.wait(timeout=60) for worker in workers] == [0] * 4
    assert [change.champion for change in promotions(home)] == [first]


def test_a_line_of_another_shape_is_a_named_fault(home):
    home.ledger.append("rolled_back", to="somewhere")
    with pytest.raises(LedgerError, match="line 0 is no 'rolled_back' line"):
        promotions(home)


@given(steps=st.lists(st.booleans(), max_size=12))
def test_law_the_champion_is_the_last_promotion_that_was_not_undone(tmp_path_factory, steps):
    home, stack = Home(tmp_path_factory.mktemp("home")), []
    for at, is_promotion in enumerate(steps):
        if is_promotion:
            stack.append(checkpoint(home, f"number {at}"))
            promote(home, promotion_of(home, stack[-1], f"decision {at}"))
        elif len(stack) > 1:
            stack.pop()
            roll_back(home, reason="undone", person="Ada")
        assert champion_digest(home) == (stack[-1] if stack else None)
    assert champions(home) == stack
