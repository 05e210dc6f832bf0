"""The evaluation's further input: whom the newest checkpoint stands against, by the ledger."""

from assets.evaluation import _taken_back
from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import Promotion, promote
from dpo_pipeline.evaluation.standing import opponent_of_newest


def checkpoint(home, words):
    with home.store.staging() as folder:
        (folder / "weights").write_text(words)
        artifact = home.store.publish(folder, Recipe("dpo_checkpoint", "1", {"w": words}, ()), Outcome())
    home.ledger.append("finished", asset="dpo_checkpoint", partition=None, artifact=artifact.digest)
    return artifact


def test_the_opponent_is_what_was_promoted_last_and_not_the_newest(tmp_path):
    home = Home(tmp_path)
    assert opponent_of_newest(home) == {}
    first, second, _newest = (checkpoint(home, words) for words in ("a", "b", "c"))
    promote(home, Promotion(first.digest, None, report="r", decision="d1"))
    promote(home, Promotion(second.digest, first.digest, report="r", decision="d2"))
    assert opponent_of_newest(home)["champion"].digest == second.digest


def test_a_champion_stands_against_the_one_it_replaced(tmp_path):
    home = Home(tmp_path)
    first = checkpoint(home, "a")
    promote(home, Promotion(first.digest, None, report="r", decision="d1"))
    assert opponent_of_newest(home) == {}, "the first replaced nobody"
    second = checkpoint(home, "b")
    promote(home, Promotion(second.digest, first.digest, report="r", decision="d2"))
    assert opponent_of_newest(home)["champion"].digest == first.digest


def test_the_report_warns_of_models_that_learned_what_was_taken_back_and_else_keeps_its_recipe(tmp_path):
    home = Home(tmp_path)
    old, new = checkpoint(home, "a"), checkpoint(home, "b")
    roles = (Parent("dpo_checkpoint", "dpo_checkpoint", new.digest), Parent("champion", "dpo_checkpoint", old.digest))
    recipe = Recipe("evaluation_report", "1", {}, roles)
    assert _taken_back(home, recipe) == {}
    line = home.ledger.append(
        "forgotten",
        person="Ada",
        reason="Ticket 4",
        what="annotator 00",
        forgotten={"annotators": ["00"], "records": [], "texts": []},
        drops=[],
        checkpoints=[old.digest],
        pseudonyms=home.pseudonym_fingerprint(),
    )
    number = line["seq"] + 1
    said = f"The champion learned from what the tombstone on ledger line {number} took back; its weights keep that."
    assert _taken_back(home, recipe) == {"warned": [said]}
    assert _taken_back(home, Recipe("evaluation_report", "1", {}, roles[:1])) == {}
