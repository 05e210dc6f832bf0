"""Personal data end to end: whatever the profile says becomes of it, no table and no report that is made holds any."""

import json

import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.annotators import report_annotators
from dpo_pipeline.preferences.golden import golden_leaks
from dpo_pipeline.preferences.leakage import near_leaks
from dpo_pipeline.preferences.pinned import GoldenSet
from dpo_pipeline.preferences.settings import PreferenceSettings

MAIL, PHONE, CARD = "anna.muster@example.org", "+49 30 12345678", "4111 1111 1111 1111"
SECRETS = (MAIL, PHONE, CARD)
NO_CARD = "4111 1111 1111 1112"
ROWS = [
    judgment(
        [
            {"role": "system", "content": f"Complaints go to {MAIL}."},
            {"role": "user", "content": f"My card {CARD} was charged twice, call me at {PHONE}."},
        ],
        f"We wrote to {MAIL}, Anna, and refund the card {CARD}.",
        f"Please call {PHONE} yourself, it is about order {NO_CARD}.",
        verdict,
        annotator,
    )
    for verdict, annotator in (("a", "ann-1"), ("b", "ann-2"), ("a", "ann-3"), ("a", "ann-4"))
]
FINE = judgment("Where is my parcel?", "It is on its way to you.", "I do not know where it is.", "a")


def settings(action):
    return PreferenceSettings(rules={"email": action, "phone": action, "payment_card": action})


def texts_below(folder):
    """Every value of every table and the bytes of every page and JSON under a folder."""
    assert list(folder.rglob("*.parquet"))
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            yield path.name, repr(pq.read_table(path).to_pylist())
        elif path.suffix in {".json", ".html"}:
            yield path.name, path.read_text()


def made(world, action):
    given = settings(action)
    drop = world.drop("may", [*ROWS, FINE], settings=given)
    pairs, outcome = world.build(drop, settings=given)
    report = world.new_folder("report")
    report_annotators([drop], pairs, report, settings=given, reporter=Quiet())
    return drop, pairs, report, outcome


@pytest.mark.parametrize("action", ["redact", "drop"])
def test_nothing_that_is_made_holds_personal_data(world, action):
    drop, pairs, report, _ = made(world, action)
    folders = (pairs, report, drop.sketches) if action == "redact" else (pairs, report)
    for folder in folders:
        for name, text in texts_below(folder):
            for secret in SECRETS:
                assert secret not in text, name


def test_redacted_texts_keep_everything_else_and_say_what_was_there(world):
    _, pairs, _, outcome = made(world, "redact")
    assert outcome.counts["pairs"] == 2
    (row,) = [row for row in pq.read_table(pairs / "pairs.parquet").to_pylist() if row["flags"]]
    assert [turn["content"] for turn in row["prompt"]] == [
        "Complaints go to [EMAIL].",
        "My card [CARD] was charged twice, call me at [PHONE].",
    ]
    assert row["chosen"] == "We wrote to [EMAIL], Anna, and refund the card [CARD]."
    assert row["rejected"] == f"Please call [PHONE] yourself, it is about order {NO_CARD}."
    assert row["flags"] == ["email", "payment_card", "phone"]
    assert row["judgment_count"] == 4


def test_dropped_pairs_are_left_out_with_their_reason(world):
    _, pairs, _, outcome = made(world, "drop")
    assert outcome.counts["pairs"] == 1
    assert outcome.counts["excluded_email"] == 1
    (row,) = pq.read_table(pairs / "excluded_pairs.parquet").to_pylist()
    assert row["reason"] == "email"
    assert len(row["judgment_ids"]) == 4


def test_flagged_texts_stay_as_they_are_but_the_reports_examples_do_not(world):
    _, pairs, report, _ = made(world, "flag")
    held = dict(texts_below(pairs))["pairs.parquet"]
    assert all(secret in held for secret in SECRETS)
    page = (report / "report.html").read_text()
    assert "[EMAIL]" in page
    assert not any(secret in page for secret in SECRETS)


def addressed(count):
    """Pairs of prompts that differ in an address only, of which it is half the words."""
    return [
        f"parcel {number} of {' '.join(f'a{number}x{word}' for word in range(6))} went to "
        f"{'.'.join(f'n{number}{who}{part}' for part in range(8))}@example{number}{who}.org instead"
        for number in range(count)
        for who in "pq"
    ]


def test_prompts_that_redaction_makes_alike_stand_on_one_side(world):
    """As exported they are less than half alike and may stand on both sides; as published they are the same."""
    rows = [judgment(text, f"First answer {at}.", f"Second one, {at}.") for at, text in enumerate(addressed(40))]
    leaks = {}
    earlier = []
    for action in ("flag", "redact"):
        given = settings(action).model_copy(update={"held_out_share": 0.4})
        drop = world.drop("may", rows, settings=given)
        out, outcome = world.build(drop, settings=given)
        resumed, _ = world.build(drop, settings=given, known=earlier)
        assert [(resumed / path.name).read_bytes() == path.read_bytes() for path in out.iterdir()].count(False) == 0
        assert outcome.counts["pairs"] == 80
        leaks[action] = near_leaks(out, jaccard=0.5)
        earlier.append(out)
    assert leaks == {"flag": [], "redact": []}
    sides = {
        row["prompt"][0]["content"]: row["split"] for row in pq.read_table(earlier[1] / "pairs.parquet").to_pylist()
    }
    assert len(sides) == 40, "both prompts of a pair read the same"
    assert set(sides.values()) == {"train", "held_out"}
    plain = pq.read_table(earlier[0] / "pairs.parquet").to_pylist()
    number_of = {row["prompt"][0]["content"].split()[1]: set() for row in plain}
    for row in plain:
        number_of[row["prompt"][0]["content"].split()[1]].add(row["split"])
    assert {"train", "held_out"} in number_of.values(), "as exported they are strangers"


def test_a_golden_prompt_is_looked_for_as_the_drops_read(world, tmp_path):
    text, copy = addressed(1)
    path = tmp_path / "golden.jsonl"
    path.write_text(json.dumps({"prompt": text, "chosen": "It comes today.", "rejected": "No idea."}))
    pinned = GoldenSet(path=str(path), sha256=sha256_of_file(path))
    for action, count in (("flag", 0), ("redact", 1)):
        given = settings(action).model_copy(update={"held_out_share": 0.001, "golden_set": pinned})
        drop = world.drop("may", [judgment(copy, "It went away.", "I do not know.")], settings=given)
        out, outcome = world.build(drop, settings=given)
        assert outcome.counts["prompts_like_golden"] == count
        assert pq.read_table(out / "pairs.parquet")["split"].to_pylist() == [("train", "held_out")[count]]


def test_a_table_made_before_the_golden_set_is_searched_as_it_reads(world, tmp_path):
    """What today's build leaves out of training may stand in the table an earlier model learned from."""
    text, copy = addressed(1)
    path = tmp_path / "golden.jsonl"
    path.write_text(json.dumps({"prompt": text, "chosen": "It comes today.", "rejected": "No idea."}))
    plain = settings("redact").model_copy(update={"held_out_share": 0.001})
    pinned = plain.model_copy(update={"golden_set": GoldenSet(path=str(path), sha256=sha256_of_file(path))})
    drop = world.drop("may", [judgment(copy, "It went away.", "I do not know.")], settings=plain)
    (before, _), (today, _) = (world.build(drop, settings=given) for given in (plain, pinned))
    (prompt,) = pq.read_table(before / "pairs.parquet")["prompt_id"].to_pylist()
    assert golden_leaks(today, similarity=0.5) == []
    assert golden_leaks(today, similarity=0.5, trained_in=before) == [prompt]
