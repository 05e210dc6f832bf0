"""The two drops: what is planted is really there, and equal seeds give equal bytes."""

import hashlib
import json

import pytest

from dpo_pipeline.samples.scenario import generate_scenario


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return home, generate_scenario(home / "inbox", seed=11, scale=0.05)


def test_equal_seeds_give_equal_bytes(small, tmp_path):
    home, _ = small
    generate_scenario(tmp_path / "inbox", seed=11, scale=0.05)
    assert digests(tmp_path) == digests(home)


def test_another_seed_gives_another_story(small, tmp_path):
    home, _ = small
    generate_scenario(tmp_path / "inbox", seed=12, scale=0.05)
    assert digests(tmp_path)["inbox/2026-09-first/agent_replies.jsonl"] != digests(home).get(
        "inbox/2026-09-first/agent_replies.jsonl"
    )


def test_each_drop_is_marked_complete_and_explains_itself(small):
    home, _ = small
    for drop in ("2026-09-first", "2026-10-second"):
        names = {path.name for path in (home / "inbox" / drop).iterdir()}
        assert {"_COMPLETE", "drop.yaml", "agent_replies.jsonl"} < names


def test_planted_faults_are_written_down_beside_the_inbox(small):
    home, facts = small
    planted = json.loads((home / "planted.json").read_text())
    assert planted["faults"] == json.loads(json.dumps(facts.as_dict()))["faults"]
    for kind in (
        "exact_duplicates",
        "normalised_duplicates",
        "near_duplicates",
        "swapped_duplicates",
        "repeated_verdicts",
        "contradictory_votes",
        "ties",
        "both_bad",
        "empty_responses",
        "careless_annotators",
        "broken/invalid_utf8",
    ):
        entry = planted["faults"][kind]
        assert entry["count"] == len(entry["where"]) > 0, kind
    assert not list((home / "inbox").rglob("planted.json"))


def test_copies_name_a_prompt_that_is_in_the_export(small):
    home, facts = small
    text = "".join(path.read_bytes().decode(errors="replace") for path in sorted((home / "inbox").rglob("*.[jc]s*")))
    for kind in ("exact_duplicates", "swapped_duplicates", "near_duplicates"):
        for where in facts.faults[kind]["where"]:
            assert where["copy_of"].replace('"', '""') in text


def test_demonstrations_leave_some_combinations_out(small):
    home, facts = small
    lines = (home / "inbox/2026-09-first/agent_replies.jsonl").read_bytes().splitlines()
    assert len(lines) == facts.drops["2026-09-first"]["demonstrations"] + len(
        [
            where
            for kind, entry in facts.faults.items()
            for where in entry["where"]
            if kind.startswith("broken/")
            and where["drop"] == "2026-09-first"
            and where["file"] == "agent_replies.jsonl"
        ]
    )
    assert len(facts.unseen_combinations) == 8
