"""`dpo-pipeline champion` read aloud: show, history, rollback; a reason is asked for, the alias follows."""

import pytest
from click.testing import CliRunner

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.promotions import Mode, Promotion, champion_digest, promote
from dpo_pipeline.evaluation import champion_commands
from dpo_pipeline.evaluation.champion_commands import champion


class Entry:
    """An entry point that notes what it was called with."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def load(self):
        return self

    def __call__(self, *given, **named):
        self.calls.append((given, named))
        return self.answer


@pytest.fixture
def say(home, monkeypatch):
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(home.root))

    def run(*words, **options):
        return CliRunner().invoke(champion, words, **options)

    return run


def checkpoint(home, name):
    with home.store.staging() as folder:
        (folder / "model").write_text(name)
        return home.store.publish(folder, Recipe("dpo_checkpoint", "1", {"name": name}, ()), Outcome()).digest


def two_champions(home):
    first, second = checkpoint(home, "first"), checkpoint(home, "second")
    verdict = {"outcome": "better", "reason": "dpo gains +40.0 points."}
    promote(home, Promotion(first, None, "report", "one", verdict))
    word = {"mode": Mode.MANUAL, "reason": "reads\x1b[31m better", "person": "Ada"}
    promote(home, Promotion(second, first, "report", "two", verdict, **word))
    return first, second


def test_before_the_first_promotion_show_and_history_say_so(say):
    assert say("show").output == "There is no champion: nothing was promoted yet.\n"
    assert say("history").output == "Nothing was promoted yet.\n"


def test_the_history_tells_who_when_and_why_without_control_characters(home, say):
    first, second = two_champions(home)
    lines = say("history").output.splitlines()
    assert lines[0][18:] == f"promoted {first[:12]}, the first champion by the rule: dpo gains +40.0 points."
    assert lines[1][18:] == f"promoted {second[:12]} in place of {first[:12]} by Ada: reads [31m better"
    shown = say("show").output.splitlines()
    assert shown[0] == f"dpo_checkpoint {second}"
    assert shown[2] == str(home.store.path_of("dpo_checkpoint", second) / "model")


def test_a_rollback_is_told_to_the_alias_and_shown(home, say, monkeypatch):
    first, second = two_champions(home)
    follow = Entry(["MLflow is away; the next reconcile moves its alias"])
    monkeypatch.setattr(champion_commands, "entry_points", lambda group: [follow])
    result = say("rollback", "--reason", "it invents order numbers", "--person", "Ada")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0][18:] == f"rolled back to {first[:12]}, away from {second[:12]} by Ada: it invents order numbers"
    assert lines[1:] == [
        "MLflow is away; the next reconcile moves its alias",
        "Materialize `release` to hand it out again.",
    ]
    assert [given[0].root for given, _ in follow.calls] == [home.root]
    assert champion_digest(home) == first


def test_a_withdrawal_is_told_to_the_alias_and_shown(home, say, monkeypatch):
    _, second = two_champions(home)
    follow = Entry([])
    monkeypatch.setattr(champion_commands, "entry_points", lambda group: [follow])
    result = say("withdraw", "--reason", "it has seen the golden set", "--person", "Ada")
    assert result.exit_code == 0
    told = f"withdrew {second[:12]}, so that there is no champion, by Ada: it has seen the golden set"
    assert result.output.splitlines()[0][18:] == told
    assert len(follow.calls) == 1
    assert champion_digest(home) is None
    shown = say("show").output.splitlines()
    assert (shown[0], shown[1][18:]) == ("There is no champion.", told)
    assert say("history").output.splitlines()[-1][18:] == told


def test_a_rollback_without_a_reason_changes_nothing_and_says_what_is_missing(home, say):
    _, second = two_champions(home)
    result = say("rollback")
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith("a rollback was asked for without a reason. Expected: a sentence")
    assert champion_digest(home) == second


def test_promoting_by_hand_asks_whoever_offers_it(home, say, monkeypatch):
    promoter = Entry(answer=False)
    monkeypatch.setattr(champion_commands, "entry_points", lambda group: [promoter])
    assert say("promote", "--reason", "reads better", "--person", "Ada", "--profile", "demo").exit_code == 1
    [(given, named)] = promoter.calls
    assert (given[0].root, given[1], named) == (home.root, "demo", {"reason": "reads better", "person": "Ada"})
