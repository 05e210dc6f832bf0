"""The chain is shown as it was recorded, and verification names what no longer fits."""

import json
from collections import Counter

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.lineage.chain import ancestors, as_text, chain_of
from dpo_pipeline.lineage.verify import verdict, verify


def make(home, kind, text, *parents, partition=None, books=None, recorded=True):
    recipe = Recipe(kind, "1", {}, tuple(Parent(role, artifact.kind, artifact.digest) for role, artifact in parents))
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text(text)
        artifact = home.store.publish(folder, recipe, Outcome(counts={"rows": len(text)}, books=books))
    if recorded:
        home.ledger.append("finished", asset=kind, partition=partition, artifact=artifact.digest)
    return artifact


@pytest.fixture
def chain(home):
    may = make(home, "judgments", "may", partition="may", books=Books(3, Counter(judgments=3)))
    june = make(home, "judgments", "june", partition="june")
    pairs = make(home, "preference_pairs", "pairs", ("judgments/may", may), ("judgments/june", june))
    sft = make(home, "sft_checkpoint", "sft", ("preference_pairs", pairs))
    dpo = make(home, "dpo_checkpoint", "dpo", ("preference_pairs", pairs), ("sft_checkpoint", sft))
    return {"may": may, "june": june, "pairs": pairs, "sft": sft, "dpo": dpo}


def faults(home, subject="dpo_checkpoint"):
    return [fault for check in verify(home, subject) for fault in check.faults]


def test_the_tree_names_each_ancestor_and_unfolds_it_once(home, chain):
    text = as_text(chain_of(home, "dpo_checkpoint"))
    names = [line.replace("│", " ").replace("├──", "").replace("└──", "").split()[0] for line in text.splitlines()]
    assert names == [
        "dpo_checkpoint",
        "preference_pairs",
        "judgments/may",
        "judgments/june",
        "sft_checkpoint",
        "preference_pairs",
    ]
    assert text.splitlines()[-1].endswith("(above)")
    assert set(ancestors(chain_of(home, "dpo_checkpoint"))) == {artifact.digest for artifact in chain.values()}


def test_a_subject_may_be_an_asset_or_a_digest_of_eight_digits(home, chain):
    pairs = chain["pairs"]
    assert chain_of(home, f"preference_pairs/{pairs.digest[:8]}").artifact.digest == pairs.digest
    for wrong in ("preference_pairs/abc", "preference_pairs/" + "f" * 64, "nothing/../judgments"):
        with pytest.raises(ArtifactError):
            chain_of(home, wrong)


def test_an_untouched_chain_has_no_faults_and_is_still_incomplete(home, chain):
    checks = verify(home, "dpo_checkpoint")
    assert faults(home) == []
    assert verdict(checks) == "INCOMPLETE"


@pytest.mark.parametrize("name", ["may", "june", "pairs", "sft", "dpo"])
def test_a_flipped_byte_anywhere_in_the_chain_is_named(home, chain, name):
    path = chain[name].path / "rows.txt"
    path.write_text(path.read_text()[:-1] + "!")
    [fault] = faults(home)
    assert str(path) in fault
    assert verdict(verify(home, "dpo_checkpoint")) == "FAIL"


def test_a_dropped_ledger_line_is_found_twice_in_the_chain_and_by_the_artifact_nobody_made(home, chain):
    lines = home.ledger.path.read_text().splitlines()
    home.ledger.path.write_text("\n".join(line for line in lines if chain["sft"].digest not in line) + "\n")
    text = "\n".join(faults(home))
    assert "line 4 follows" in text
    assert f"{chain['sft'].path} is on disk but no finished attempt in the ledger made it" in text


def test_an_artifact_replaced_whole_is_found_because_the_claim_is_what_counts(home, chain):
    sft = chain["sft"].path
    stranger = make(home, "sft_checkpoint", "stranger", recorded=False)
    for name in ("rows.txt", "manifest.json"):
        (sft / name).write_bytes((stranger.path / name).read_bytes())
    assert any(f"its folder is named {chain['sft'].digest}" in fault for fault in faults(home))


def test_books_that_do_not_balance_are_named(home):
    make(home, "judgments", "x", books=Books(3, Counter(judgments=2)))
    assert "'in': 3" in faults(home, "judgments")[0]


def test_a_missing_ancestor_is_an_error_that_names_it(home, chain):
    (chain["june"].path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=f"the judgments artifact {chain['june'].digest} cannot be read"):
        verify(home, "dpo_checkpoint")


def test_the_ledger_is_plain_json_lines(home, chain):
    assert [json.loads(line)["seq"] for line in home.ledger.path.read_text().splitlines()] == [0, 1, 2, 3, 4]
