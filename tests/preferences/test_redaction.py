"""Personal data end to end: whatever the profile says becomes of it, no table and no report that is made holds any."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.annotators import report_annotators
from dpo_pipeline.preferences.golden import golden_leaks
from dpo_pipeline.preferences.leakage import near_leaks, prompts_on_both_sides
from dpo_pipeline.preferences.normalize import normalise
from dpo_pipeline.preferences.personal_finds import is_card
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


SPELLINGS = (
    str.maketrans({}),
    str.maketrans(" ", "\u00a0"),
    str.maketrans({" ": "\n"}),
    {code: chr(code + 0xFEE0) for code in range(0x30, 0x3A)},
    {code: f"{chr(code)}\u200b" for code in range(0x30, 0x3A)},
    str.maketrans({" ": "\u2011"}),
)
NUMBERS = ("+49 30 123456{:02}", "+1 555 123 45{:02}", "4111 1111 1111 {:04}", "+33 1 23 45 67 {:02}")


def test_no_prompt_of_eighty_variants_stands_on_both_sides_once_redacted(world):
    """Short prompts that are mostly a number, in every spelling, two numbers each: published, the couples are equal."""
    rows, couples = [], 80
    for couple in range(couples):
        for who in (couple, couple + 7):
            number = NUMBERS[couple % 4].format(who % 100)
            if number.startswith("4111"):
                number = next(
                    card for tail in range(who * 10, who * 10 + 10) if is_card(card := number[:15] + f"{tail:04}")
                )
            spelt = number.translate(SPELLINGS[couple % len(SPELLINGS)] if who == couple else SPELLINGS[0])
            text = f"ring{couple} {spelt} {spelt}" if couple % 2 else spelt
            rows.append(judgment(text, f"Answer {couple} {who}.", f"Another {who} {couple}."))
    given = settings("redact").model_copy(update={"held_out_share": 0.4})
    out, _ = world.build(world.drop("may", rows, settings=given), settings=given)
    sides: dict[str, set[str]] = {}
    for row in pq.read_table(out / "pairs.parquet").to_pylist():
        said = normalise(pa.array([row["prompt"][0]["content"]]))[0].as_py()
        sides.setdefault(said, set()).add(row["split"])
    assert {"[phone]", "[card]"} <= sides.keys()
    assert len(sides) == 2 + couples // 2, "every number was found, so both of a couple read the same"
    assert all(len(where) == 1 for where in sides.values())
    assert set().union(*sides.values()) == {"train", "held_out"}
    assert near_leaks(out, jaccard=0.5) == []
    assert prompts_on_both_sides(out) == []


def test_openings_and_system_turns_are_compared_as_they_are_published(world):
    """One opening but for a number: other continuations of it stand on its side."""
    rows = []
    for number in range(40):
        for who in (1, 2):
            opening = f"please call me back about parcel {number} under +49 30 123456{who}{number % 10}"
            goes_on = " ".join(f"w{number}x{who}x{at}" for at in range(60))
            turns = [("user", opening), ("assistant", f"Yes, {number}."), ("user", goes_on)]
            prompt = [{"role": role, "content": content} for role, content in turns]
            rows.append(judgment(prompt, f"First {number} {who}.", f"Second {number} {who}."))
    given = settings("redact").model_copy(update={"held_out_share": 0.4})
    out, _ = world.build(world.drop("may", rows, settings=given), settings=given)
    sides: dict[str, set[str]] = {}
    for row in pq.read_table(out / "pairs.parquet").to_pylist():
        sides.setdefault(row["prompt"][0]["content"], set()).add(row["split"])
    assert sorted(map(len, sides.values())) == [1] * 40


def test_pairs_that_differ_in_personal_data_only_are_published_once(world):
    """Most of each text is the number: as exported the two are not alike, as published they are one pair."""
    texts = [
        ("who has {}", "it is {} of course", "nobody has {} here"),
        ("ask {} now", "{} knows it all", "never ask {} at all"),
    ]
    rows = [
        judgment(*(text.format(f"+49 30 {who}") for text in three))
        for three in texts
        for who in ("1234567", "765\u00a04321", "9876\u200b543")
    ]
    for action, count in (("flag", 6), ("redact", 2)):
        _, outcome = world.build(world.drop("may", rows, settings=settings(action)), settings=settings(action))
        assert outcome.counts["pairs"] == count


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
