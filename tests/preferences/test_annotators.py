"""The annotator report: planted behaviour is found, unknown things are said to be unknown, the page is inert."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment, tiny

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.annotator_page import headline
from dpo_pipeline.preferences.annotators import report_annotators
from dpo_pipeline.preferences.settings import PreferenceSettings

SETTINGS = PreferenceSettings()


def report(world, *drops):
    pairs, _ = world.build(*drops)
    out = world.new_folder("report")
    outcome = report_annotators(drops, pairs, out, settings=SETTINGS, reporter=Quiet())
    return out, outcome


def planted_rows(chance, pair_count, *, shown=True):
    """Four diligent annotators, one who clicks what stands first, one who answers at random and in half a second."""
    rows = []
    for number in range(pair_count):
        good, bad = f"A long and careful reply, number {number}, with all that was asked.", f"No {number}."
        for name in ("d1", "d2", "d3", "d4", "first", "random"):
            good_first = chance.random() < 0.5
            a, b = (good, bad) if good_first else (bad, good)
            if name == "first":
                choice = "a"
            elif name == "random":
                choice = chance.choice(["a", "b"])
            else:
                choice = "a" if good_first == (chance.random() < 0.9) else "b"
            rows.append(
                judgment(
                    f"Question number {number} about something",
                    a,
                    b,
                    str(choice),
                    name,
                    shown_first="a" if shown else None,
                    seconds=0.5 if name == "random" else 30.0,
                    justification="ok" if name == "random" else f"because of {number} {chance.integers(9)}",
                    dimensions=[{"name": "tone", "strength": -1.0 if choice == "a" else 1.0}],
                )
            )
    return rows


def test_planted_behaviour_is_found(world):
    out, outcome = report(world, world.drop("may", planted_rows(np.random.default_rng(2), 120)))
    rows = {row["annotator"]: row for row in pq.read_table(out / "annotators.parquet").to_pylist()}
    assert rows["first"]["suspected"] == ["disagrees", "picks_by_position"]
    assert rows["random"]["suspected"] == ["disagrees", "too_fast", "one_justification", "short_justifications"]
    for name in ("d1", "d2", "d3", "d4"):
        assert rows[name]["suspected"] == []
        assert rows[name]["agreement"] > 0.75
        assert rows[name]["reliability"] > rows["random"]["reliability"] + 0.2
        assert rows[name]["agreement_low"] < rows[name]["agreement"] < rows[name]["agreement_high"]
    assert rows["first"]["first_share"] == 1.0
    assert rows["random"]["seconds_median"] == 0.5
    assert outcome.counts["annotators"] == 6
    assert outcome.counts["annotators_suspected"] == 2
    overall = json.loads((out / "report.json").read_text())["overall"]
    assert overall["longer_share"] > 0.6
    assert 0 < overall["alpha_nominal"] < 1


def test_position_is_unknown_where_the_export_does_not_say(world):
    out, _ = report(world, world.drop("may", planted_rows(np.random.default_rng(2), 40, shown=False)))
    rows = pq.read_table(out / "annotators.parquet").to_pylist()
    assert all(row["first_share"] is None and row["position_z"] is None for row in rows)
    assert not any("picks_by_position" in row["suspected"] for row in rows)
    assert json.loads((out / "report.json").read_text())["overall"]["first_share"] is None
    assert "position bias is unknown" in (out / "report.html").read_text()


def test_few_judgments_accuse_nobody(world):
    rows = [
        judgment(f"question {n}", "yes", "no", c, who)
        for n in range(5)
        for who, c in (("x", "a"), ("y", "a"), ("z", "b"))
    ]
    out, outcome = report(world, world.drop("may", rows))
    assert outcome.counts["annotators_with_few_judgments"] == 3
    assert outcome.counts["annotators_suspected"] == 0
    assert "few judgments" in (out / "report.html").read_text()


def test_the_page_is_inert_and_escapes_what_annotators_wrote(world):
    evil = "<script>alert(1)</script><img src=http://x onerror=y>"
    rows = [
        judgment(evil, evil + "1", evil + "2", choice, evil + who, dimensions=[{"name": evil, "strength": 1.0}])
        for who, choice in (("one", "a"), ("two", "b"))
    ]
    out, _ = report(world, world.drop(evil, rows))
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "<img src=http" not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;" in page
    for picture in ("agreement.png", "manners.png", "course.png", "pairs.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_examples_of_disagreement_are_short_and_show_no_personal_data(world):
    def said(who, choice):
        texts = ("Mail jo@example.org", "Card 4111 1111 1111 1111. " + "x" * 900, "Call 555-123-4567.")
        return judgment(*texts, choice, who)

    out, _ = report(world, world.drop("may", [said("one", "a"), said("two", "b")]))
    (case,) = json.loads((out / "report.json").read_text())["disagreements"]
    assert case["prompt"] == "Mail [EMAIL]"
    assert sorted([case["one"][:12], case["other"][:12]]) == ["Call [PHONE]", "Card [CARD]."]
    assert max(len(case["one"]), len(case["other"])) <= 402
    page = (out / "report.html").read_text()
    assert "jo@example.org" not in page
    assert "4111" not in page


def test_equal_inputs_give_equal_bytes(world):
    rows = planted_rows(np.random.default_rng(4), 10)
    one, _ = report(world, world.drop("may", rows))
    other, _ = report(world, world.drop("may", rows[::-1]))
    for name in (
        "annotators.parquet",
        "report.json",
        "report.html",
        "agreement.png",
        "manners.png",
        "course.png",
        "pairs.png",
    ):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_bounds_of_memory_change_no_byte(world, monkeypatch):
    """Law: gone through two pairs at a time, with rankings, repeats, weeks and dimensions, the report is the same."""
    chance = np.random.default_rng(8)
    drops = []
    for name in ("may", "june"):
        rows = planted_rows(chance, 12)
        for number, row in enumerate(rows):
            row["judged_at"] = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=number % 20)
        again = [{**row, "choice": "tie", "judgment_id": f"{number:032x}"} for number, row in enumerate(rows[::9])]
        ranked = [
            judgment("Which of these three is it?", *texts, str(chance.choice(["a", "b", "both_bad"])), who)
            for who in ("d1", "d2", None)
            for texts in (("one lamp", "two lamps"), ("two lamps", "three lamps"), ("one lamp", "three lamps"))
        ]
        drops.append(world.drop(name, [*rows, *again, *ranked]))
    whole, outcome = report(world, *drops)
    tiny(monkeypatch)
    pieces, bounded = report(world, *drops)
    content = json.loads((whole / "report.json").read_text())
    assert len(content["by_week"]) > 2
    assert content["rankings"]["groups"] == 1
    assert content["disagreements"]
    assert (bounded.counts, bounded.facts) == (outcome.counts, outcome.facts)
    assert sorted(path.name for path in pieces.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        assert (pieces / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("rows", [[], [judgment("q", "yes", "no", "a", None)]])
def test_nothing_known_is_no_error(world, rows):
    out, outcome = report(world, world.drop("may", rows))
    assert outcome.counts["annotators"] == 0
    assert "Annotator report" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("alpha", "suspected", "sentence"),
    [
        (0.85, 0, "Annotators agree reliably (alpha 0.85), nobody stands out"),
        (0.667, 1, "Annotators agree fairly (alpha 0.67), 1 annotator to look at again"),
        (0.57, 0, "Annotators agree moderately (alpha 0.57), nobody stands out"),
        (0.3, 2, "Annotators agree weakly (alpha 0.30), 2 annotators to look at again"),
        (-0.1, 0, "Annotators hardly agree (alpha -0.10), nobody stands out"),
        (None, 0, "No two judgments meet on one pair: agreement is unknown, nobody stands out"),
    ],
)
def test_the_headline_says_how_well_they_agree(alpha, suspected, sentence):
    people = [{"suspected": ["disagrees"]}] * suspected + [{"suspected": []}]
    assert headline({"overall": {"alpha_nominal": alpha}, "annotators": people}) == sentence


def length_rows(chance, who_picks_longer, pair_count=150):
    """Good replies are as often the shorter as the longer ones; three diligent people, one random, one in question."""
    rows = []
    for number in range(pair_count):
        short, long = (
            f"Yes, number {number}.",
            f"A reply of very many words, number {number}, that goes on and on and on.",
        )
        good, bad = (short, long) if number % 2 else (long, short)
        for name in ("d1", "d2", "d3", "random", "long"):
            picks_good = chance.random() < (0.5 if name == "random" else 0.9)
            if name == "long" and who_picks_longer:
                picks_good = good == long
            rows.append(judgment(f"Question number {number} about it", good, bad, "a" if picks_good else "b", name))
    return rows


def test_who_picks_by_length_is_told_from_who_errs(world):
    out, _ = report(world, world.drop("may", length_rows(np.random.default_rng(3), who_picks_longer=True)))
    rows = {row["annotator"]: row for row in pq.read_table(out / "annotators.parquet").to_pylist()}
    assert rows["long"]["longer_share"] == 1.0
    assert rows["long"]["length_z"] > 4
    assert [name for name, row in rows.items() if "picks_by_length" in row["suspected"]] == ["long"]
    assert abs(rows["random"]["length_z"]) < 3
    assert rows["random"]["longer_low"] < rows["random"]["longer_share"] < rows["random"]["longer_high"]


def test_where_the_better_reply_is_always_the_longer_one_length_accuses_nobody(world):
    out, _ = report(world, world.drop("may", planted_rows(np.random.default_rng(2), 120)))
    rows = pq.read_table(out / "annotators.parquet").to_pylist()
    assert not any("picks_by_length" in row["suspected"] for row in rows)


def test_the_report_carries_agreement_over_time_with_both_alphas(world):
    out, _ = report(world, world.drop("may", planted_rows(np.random.default_rng(2), 20)))
    content = json.loads((out / "report.json").read_text())
    (drop,) = content["by_drop"]
    assert set(drop) == {"name", "judgments", "annotators", "alpha_nominal", "alpha_ordinal", "raw_agreement"}
    low, high = content["overall"]["alpha_nominal_interval"]
    assert low < content["overall"]["alpha_nominal"] < high
    assert content["label_noise"]["pairs_compared"] == 20


def test_one_reason_for_a_ranking_counts_once(world):
    """PRISM's shape: a person scores four replies and gives one reason, which stands with each of six pairs."""
    rows = []
    for record in range(25):
        texts = [f"Reply {place} to {record}, long enough" for place in range(4)]
        rows += [
            judgment(f"Question {record}?", texts[a], texts[b], "a", "prolix", record_number=record, justification=why)
            for a in range(4)
            for b in range(a + 1, 4)
            for why in [f"the first of {record} says more" if record >= 13 else "the first one says more"]
        ]
    out, _ = report(world, world.drop("may", rows))
    (row,) = pq.read_table(out / "annotators.parquet").to_pylist()
    assert (row["judgments"], row["justifications"], row["justification_top_share"]) == (150, 25, 13 / 25)
    assert row["suspected"] == ["one_justification"]
    few, _ = report(world, world.drop("june", rows[: 19 * 6]))
    (row,) = pq.read_table(few / "annotators.parquet").to_pylist()
    assert (row["justifications"], row["justification_top_share"], row["suspected"]) == (19, 13 / 19, [])
    assert json.loads((few / "report.json").read_text())["overall"]["justified_share"] == 1.0


def test_a_drop_in_which_nobody_shares_a_pair_says_so(world):
    rows = [
        judgment(f"Question {number}?", f"Reply one to {number}", f"Reply two {number}", "a", "alone", seconds=0.1)
        for number in range(30)
    ]
    out, _ = report(world, world.drop("may", rows))
    page = (out / "report.html").read_text()
    assert "30 judgments; nobody else judged these pairs; 0.1 s each, 100.0 % faster than reading" in page
    assert "1 of 1 to look at again: 1 faster than reading." in page
    assert "Each rests on a single judgment." in page
    assert "How each annotator works" in page
    assert "Agreement of each annotator" not in page
    assert "-0.00" not in page
    pairs = json.loads((out / "report.json").read_text())["pairs"]
    assert (pairs["kept"], pairs["judged_by_several"], pairs["agreement_mean"]) == (30, 0, None)


def test_of_many_to_look_at_again_those_who_disagree_come_first(world):
    rows = []
    for number in range(60):
        for place in range(30):
            why = "the same words" if place else "different words"
            choice = "b" if place == 7 and number % 3 else "a"
            texts = (
                f"Question {number} about things?",
                f"A good reply, number {number}",
                f"A bad reply, number {number}",
            )
            rows.append(judgment(*texts, choice, f"rater-{place:02}", justification=f"{why} {number * (place < 1)}"))
    out, _ = report(world, world.drop("may", rows))
    page = (out / "report.html").read_text()
    assert page.index("rater-07") < page.index("rater-01")
    assert page.count("<li><code>") == 24
    sentence = "29 of 30 to look at again: 29 one justification for most, 1 disagrees with the others."
    assert sentence in page
    assert "the other 5 stand in the table" in page
