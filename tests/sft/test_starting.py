"""SFT starts from the base, or from the champion of the day its data last changed; the recipe says from which."""

import pytest
from worlds import COMPUTE, SCRATCH, SFT, Notes, conversations, same_bytes, texts, write_demonstrations, write_pairs

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.core.promotions import Promotion, champion_digest, promote
from dpo_pipeline.modeling.policy import policy_digest
from dpo_pipeline.sft.starting import start_of
from dpo_pipeline.sft.train import train_sft


def made(home, asset, content, partition=None, parents=()):
    with home.store.staging() as folder:
        (folder / "file.txt").write_text(content)
        recipe = Recipe(asset, "1", {"drop": partition}, tuple(parents))
        artifact = home.store.publish(folder, recipe, Outcome())
    home.ledger.append("finished", asset=asset, partition=partition, artifact=artifact.digest)
    return artifact


def champion(home, content):
    checkpoint = made(home, "dpo_checkpoint", content)
    promote(home, Promotion(checkpoint.digest, champion_digest(home), "report", f"decision {content}"))
    return checkpoint


def data(home, content):
    made(home, "raw_annotations", content, "may")
    return [
        Parent("demonstrations/may", "demonstrations", made(home, "demonstrations", content, "may").digest),
        Parent("preference_pairs", "preference_pairs", made(home, "preference_pairs", content).digest),
    ]


def test_from_the_base_nothing_is_pinned(home):
    champion(home, "first")
    assert start_of(home, "base") == {}


def test_from_the_champion_and_from_the_base_as_long_as_there_is_none(home):
    assert start_of(home, "champion") == {}
    first = champion(home, "first")
    assert start_of(home, "champion") == {"champion": first}


def test_a_new_champion_alone_changes_nothing_new_data_does(home):
    parents = data(home, "old")
    first = champion(home, "first")
    made(home, "sft_checkpoint", "x", parents=[*parents, Parent("champion", "dpo_checkpoint", first.digest)])
    second = champion(home, "second")
    assert start_of(home, "champion") == {"champion": first}
    data(home, "new")
    assert start_of(home, "champion") == {"champion": second}


def test_what_began_from_the_base_stays_so_until_the_data_changes(home):
    made(home, "sft_checkpoint", "x", parents=data(home, "old"))
    champion(home, "first")
    assert start_of(home, "champion") == {}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starting")
    write_pairs(folder / "pairs", list(texts(10)))
    write_demonstrations(folder / "demonstrations", conversations(40))
    return folder


def train(root, name, *, start=None, notes=None):
    out = root / name
    out.mkdir()
    outcome = train_sft(
        [root / "demonstrations"], root / "pairs", out, work=root / f"work {name}", start=start, sft=SFT,
        model=SCRATCH, compute=COMPUTE, reporter=notes or Notes(),
    )  # fmt: skip
    return out, outcome


def test_training_from_a_checkpoint_goes_on_where_that_one_ended(root):
    first, _ = train(root, "first")
    notes = Notes()
    second, _ = train(root, "second", start=first, notes=notes)
    again, _ = train(root, "again", start=first)
    losses, further = ([line["loss"] for line in read_metrics(out / "metrics.jsonl")] for out in (first, second))
    assert further[0] < losses[0] - 0.8 * (losses[0] - losses[-1]), "it begins where the first one ended"
    assert policy_digest(second / "model") != policy_digest(first / "model")
    assert same_bytes(second, again) == []
    assert "Going on from the champion first." in notes.sentences
