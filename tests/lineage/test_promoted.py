"""A promotion in the ledger is believed only as far as its decision and its report say the same."""

import json

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.promotions import PROMOTED, Mode, Promotion, promote, roll_back
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.promoted import check_promotions

VERDICT = {"outcome": "better", "reason": "It gained 40 points."}


@pytest.fixture
def publish(home, published):
    def make(kind, parents=(), **files):
        with home.store.staging() as folder:
            for name, text in files.items():
                (folder / f"{name}.json").write_text(text)
            return published(home, Recipe(kind, "1", {}, tuple(parents)), folder, Outcome())

    return make


@pytest.fixture
def decided(publish):
    """A checkpoint, the report that measured it, and the decision to promote it."""

    def make(weights, before=None, by_hand=None):
        checkpoint = publish("dpo_checkpoint", weights=weights)
        parents = [Parent("dpo_checkpoint", "dpo_checkpoint", checkpoint.digest)]
        report = publish("evaluation_report", parents, report="{}")
        said = {"promotes": True, "by_hand": by_hand, "challenger": checkpoint.digest, "champion": before}
        said |= {"report": report.digest, "verdict": VERDICT}
        return checkpoint, report, publish("champion", decision=json.dumps(said))

    return make


def check(home, artifact):
    return check_promotions(home, ancestors(chain_of(home, f"{artifact.kind}/{artifact.digest}")))


def test_a_promotion_by_the_rule_and_one_by_hand_are_found_as_decided(home, decided):
    first, report, decision = decided("1")
    promote(home, Promotion(first.digest, None, report.digest, decision.digest, VERDICT))
    hand = {"reason": "It reads better.", "person": "Ada"}
    second, report, decision = decided("2", first.digest, hand)
    promote(home, Promotion(second.digest, first.digest, report.digest, decision.digest, VERDICT, Mode.MANUAL, **hand))
    roll_back(home, reason="It does not.", person="Ada")
    for checkpoint in (first, second):
        found = check(home, checkpoint)
        assert (found.faults, found.not_run) == ((), None)
        assert found.looked_at.startswith("1 of 3 changes")


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("mode", "manual", "who decided"),
        ("person", "Mallory", "the person"),
        ("verdict", {"outcome": "worse"}, "the verdict"),
        ("replaces", "f" * 64, "the champion before"),
    ],
)
def test_a_line_that_says_more_than_its_decision_is_named_with_both_values(home, decided, field, value, name):
    checkpoint, report, decision = decided("1")
    line = {"challenger": checkpoint.digest, "replaces": None, "report": report.digest, "decision": decision.digest}
    line |= {"verdict": VERDICT, "mode": "auto", "reason": "", "person": "", field: value}
    written = home.ledger.append(PROMOTED, **line)
    [fault] = check(home, checkpoint).faults
    assert fault.startswith(f"ledger line {written['seq'] + 1}, the promotion of dpo_checkpoint {checkpoint.digest}")
    assert f"says {name} is {value}, its decision {decision.path} says" in fault


def test_a_promotion_by_a_report_about_another_checkpoint_or_without_its_decision_is_named(home, decided):
    checkpoint, _, _ = decided("1")
    other, report, decision = decided("2")
    promote(home, Promotion(checkpoint.digest, None, report.digest, decision.digest, VERDICT))
    faults = check(home, checkpoint).faults
    assert any(f"its decision {decision.path} says {other.digest}" in fault for fault in faults)
    assert any(f"names the report {report.path}, which measured {other.digest}" in fault for fault in faults)
    (decision.path / "decision.json").unlink()
    assert "rests on what cannot be read" in check(home, checkpoint).faults[0]
    (decision.path / "manifest.json").unlink()
    assert f"the champion artifact {decision.digest} cannot be read" in check(home, checkpoint).faults[0]
