"""The chain is shown as it was recorded, and verification names what no longer fits."""

import json
import shutil
from collections import Counter

import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.promotions import Promotion, promote
from dpo_pipeline.lineage.chain import ancestors, as_text, chain_of, chains_of
from dpo_pipeline.lineage.verify import verdict, verify


def make(home, kind, text, *parents, partition=None, books=None, recorded=True):
    recipe = Recipe(kind, "1", {}, tuple(Parent(role, artifact.kind, artifact.digest) for role, artifact in parents))
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text(text)
        artifact = home.store.publish(folder, recipe, Outcome(counts={"rows": len(text)}, books=books))
    if recorded:
        same = {"attempt": f"run/{artifact.digest}", "asset": kind, "partition": partition, "recipe": recipe.digest}
        opening = {name: artifact.manifest[name] for name in ("settings", "code_version", "parents")}
        home.ledger.append("started", **same, **opening)
        home.ledger.append("finished", **same, artifact=artifact.digest)
    return artifact


@pytest.fixture
def chain(home):
    may = make(home, "drop", "may", partition="may", books=Books(3, Counter(judgments=3)))
    june = make(home, "drop", "june", partition="june")
    pairs = make(home, "table", "pairs", ("drop/may", may), ("drop/june", june))
    sft = make(home, "before", "sft", ("table", pairs))
    dpo = make(home, "after", "dpo", ("table", pairs), ("before", sft))
    return {"may": may, "june": june, "pairs": pairs, "sft": sft, "dpo": dpo}


def faults(home, subject="after"):
    return [fault for check in verify(home, subject) for fault in check.faults]


def test_the_tree_names_each_ancestor_and_unfolds_it_once(home, chain):
    text = as_text(chain_of(home, "after"))
    names = [line.replace("│", " ").replace("├──", "").replace("└──", "").split()[0] for line in text.splitlines()]
    assert names == [
        "after",
        "table",
        "drop/may",
        "drop/june",
        "before",
        "table",
    ]
    assert text.splitlines()[-1].endswith("(above)")
    assert set(ancestors(chain_of(home, "after"))) == {artifact.digest for artifact in chain.values()}


def test_a_subject_may_be_an_asset_or_a_digest_of_eight_digits(home, chain):
    pairs = chain["pairs"]
    assert chain_of(home, f"table/{pairs.digest[:8]}").artifact.digest == pairs.digest
    for wrong in ("table/abc", "table/" + "f" * 64, "nothing/../drop"):
        with pytest.raises(ArtifactError):
            chain_of(home, wrong)


def test_an_untouched_chain_has_no_faults_and_is_still_incomplete(home, chain):
    checks = verify(home, "after")
    assert faults(home) == []
    assert verdict(checks) == "INCOMPLETE"


@pytest.mark.parametrize("name", ["may", "june", "pairs", "sft", "dpo"])
def test_a_flipped_byte_anywhere_in_the_chain_is_named(home, chain, name):
    path = chain[name].path / "rows.txt"
    path.write_text(path.read_text()[:-1] + "!")
    [fault] = faults(home)
    assert str(path) in fault
    assert verdict(verify(home, "after")) == "FAIL"


def test_a_dropped_ledger_line_is_found_twice_in_the_chain_and_by_the_artifact_nobody_made(home, chain):
    lines = home.ledger.path.read_text().splitlines()
    claim = f'"artifact":"{chain["sft"].digest}"'
    home.ledger.path.write_text("\n".join(line for line in lines if claim not in line) + "\n")
    text = "\n".join(faults(home))
    assert "line 8 follows" in text
    assert f"{chain['sft'].path} is on disk but no finished attempt in the ledger made it" in text


def test_an_artifact_replaced_whole_is_found_because_the_claim_is_what_counts(home, chain):
    sft = chain["sft"].path
    stranger = make(home, "before", "stranger", recorded=False)
    for name in ("rows.txt", "manifest.json"):
        (sft / name).write_bytes((stranger.path / name).read_bytes())
    assert any(f"its folder is named {chain['sft'].digest}" in fault for fault in faults(home))


def test_books_that_do_not_balance_are_named(home):
    make(home, "drop", "x", books=Books(3, Counter(judgments=2)))
    assert "'in': 3" in faults(home, "drop")[0]


def test_a_missing_ancestor_is_a_fault_that_names_it(home, chain):
    (chain["june"].path / "manifest.json").unlink()
    [fault] = faults(home)
    assert f"the drop artifact {chain['june'].digest} cannot be read" in fault
    assert f"drop/june, an input of table {chain['pairs'].digest[:12]}" in as_text(chain_of(home, "after"))


@pytest.mark.parametrize("manifest", ["[]", "3", '{"kind": 1}', "not json"])
def test_a_manifest_of_another_shape_is_a_fault_that_names_it(home, chain, manifest):
    (chain["june"].path / "manifest.json").write_text(manifest)
    assert chain["june"].digest in faults(home)[0]


def test_a_subject_that_the_ledger_names_and_the_disk_lacks_is_an_error_that_names_it(home, chain):
    shutil.rmtree(chain["dpo"].path)
    with pytest.raises(ArtifactError, match=chain["dpo"].digest):
        verify(home, f"after/{chain['dpo'].digest[:8]}")


@pytest.mark.parametrize("line", ["[]", "null", '{"event": 3}', "{"])
def test_a_ledger_line_of_another_shape_is_a_fault_that_names_it(home, chain, line):
    home.ledger.path.write_text(home.ledger.path.read_text() + line + "\n")
    assert "line 11 is not" in faults(home)[0]
    assert verdict(verify(home, "after")) == "FAIL"


def test_a_ledger_cut_off_at_its_end_is_found(home, chain):
    lines = home.ledger.path.read_text().splitlines(keepends=True)
    home.ledger.path.write_text("".join(lines[:-2]))
    assert "has 8 lines, its head speaks of 10" in faults(home, "before")[0]


def test_a_partitioned_asset_is_named_by_its_drop_or_stands_for_all_of_them(home, chain):
    assert chain_of(home, "drop/may").artifact == chain["may"]
    assert [node.artifact for node in chains_of(home, "drop")] == [chain["may"], chain["june"]]
    assert [check.faults for check in verify(home, "drop") if check.faults] == []
    with pytest.raises(ArtifactError, match=r"drop names 2 artifacts: drop/\w{12}, drop/\w{12}. Give one drop"):
        chain_of(home, "drop")
    assert chain_of(home, chain["sft"].digest[:10]).artifact == chain["sft"]


def test_the_champion_is_who_the_ledger_says(home):
    checkpoint = make(home, "dpo_checkpoint", "weights")
    with pytest.raises(ArtifactError, match="champion names no artifact"):
        chain_of(home, "champion")
    promote(home, Promotion(checkpoint.digest, None, "r" * 64, "d" * 64))
    make(home, "dpo_checkpoint", "newer weights")
    assert chain_of(home, "champion").artifact == checkpoint


def test_what_cannot_be_found_is_answered_with_what_there_is(home, chain):
    with pytest.raises(ArtifactError, match=r"an asset \(drop/\{may, june\}, table, before, after\), asset/drop"):
        chain_of(home, "dorp")


@pytest.mark.parametrize(
    ("field", "value"), [("settings", {"beta": 2}), ("code_version", "9"), ("parents", []), ("recipe", "0")]
)
def test_a_ledger_that_tells_another_story_than_the_manifest_is_named_field_by_field(home, field, value):
    made = make(home, "table", "x", recorded=False)
    same = {"attempt": "a", "asset": "table", "partition": None, "recipe": Recipe("table", "1", {}, ()).digest}
    opening = {"settings": {}, "code_version": "1", "parents": [["other"]] if field == "parents" else []}
    home.ledger.append("started", **{**same, **opening, **({field: value} if field != "parents" else {})})
    home.ledger.append("finished", **same, artifact=made.digest)
    assert any(f"table {made.digest}: {field} is" in fault for fault in faults(home, "table"))


def test_an_attempt_ends_once_and_only_after_it_started(home, chain):
    home.ledger.append("failed", attempt=f"run/{chain['sft'].digest}")
    home.ledger.append("killed", attempt="unheard of")
    text = "\n".join(faults(home))
    assert f"attempt run/{chain['sft'].digest} ended 2 times" in text
    assert "attempt unheard of killed but never started" in text


def test_a_link_among_the_files_is_named(home, chain):
    path = chain["sft"].path / "rows.txt"
    path.rename(home.root / "elsewhere")
    path.symlink_to(home.root / "elsewhere")
    assert any("is a symbolic link" in fault for fault in faults(home))


def test_the_ledger_is_plain_json_lines(home, chain):
    assert [json.loads(line)["seq"] for line in home.ledger.path.read_text().splitlines()] == list(range(10))
