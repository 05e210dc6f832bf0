"""The evaluation's further input: today's champion by the ledger, none before the first promotion."""

from assets.evaluation import todays_champion
from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import Promotion, promote


def checkpoint(home, words):
    with home.store.staging() as folder:
        (folder / "weights").write_text(words)
        return home.store.publish(folder, Recipe("dpo_checkpoint", "1", {"w": words}, ()), Outcome())


def test_the_champion_is_what_was_promoted_last_and_not_the_newest(tmp_path):
    home = Home(tmp_path)
    assert todays_champion(home) == {}
    first, second, _newest = (checkpoint(home, words) for words in ("a", "b", "c"))
    promote(home, Promotion(first.digest, None, report="r", decision="d1"))
    promote(home, Promotion(second.digest, first.digest, report="r", decision="d2"))
    assert todays_champion(home)["champion"].digest == second.digest
