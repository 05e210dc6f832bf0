"""A tombstone: the next tables hold nothing of it, other drops keep their digests, an audit names what is older."""

import json
import random
import shutil

import pyarrow.parquet as pq
import pytest

from dpo_pipeline.annotations.tombstones import drops_to_read_again, refuse_forgotten, tombstones
from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import Promotion, promote
from dpo_pipeline.lineage import forget
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.forgotten import check_forgotten
from dpo_pipeline.lineage.records import TABLES, check_books, check_rows
from dpo_pipeline.sft.starting import start_of

MAPPING = """
files:
  - match: "verdicts.jsonl"
    mapping: {prompt: question, response_a: one, response_b: two, verdict: verdict, annotator: who}
    vocabulary: {left: -2, right: 2}
"""
DROPS = {"may": ["alice", "bob"], "june": ["bob", "carol"], "july": ["carol", "dora"]}
ITEMS = 10
WORDS = [
    first + last
    for first in ("ber", "cal", "dor", "fen", "gul", "mip")
    for last in ("ana", "esto", "ilk", "ov", "umba", "y")
]


def verdict(drop, item, who):
    """A record whose texts are like no other item's."""
    some = random.Random(f"{drop} {item}").sample(WORDS, 24)
    first, second, third = (" ".join(some[place : place + 8]) for place in (0, 8, 16))
    return {"question": f"{first}?", "one": f"Yes, {second}.", "two": f"No, {third}.", "verdict": "left", "who": who}


def write_drop(home, drop, annotators, extra=()):
    folder = home.inbox / drop
    folder.mkdir(parents=True)
    (folder / "drop.yaml").write_text(MAPPING)
    records = [verdict(drop, item, who) for item in range(ITEMS) for who in annotators]
    said = [json.dumps(record) for record in [*records, *extra]]
    broken = [json.dumps({**verdict(drop, 0, who), "verdict": "perhaps"}) for who in annotators]
    (folder / "verdicts.jsonl").write_text("\n".join([*said, *broken, '{"who": "someone", "cut']) + "\n")
    shown = {"messages": [{"role": "user", "content": f"Hello {drop}"}, {"role": "assistant", "content": "Hi."}]}
    (folder / "examples.jsonl").write_text(json.dumps(shown) + "\n")


@pytest.fixture(scope="module")
def once(tmp_path_factory, graph):
    home = Home(tmp_path_factory.mktemp("forget") / "home")
    for drop, annotators in DROPS.items():
        write_drop(home, drop, annotators)
        graph.take_in(home, drop)
    graph.build(home)
    return home


@pytest.fixture
def small(once, tmp_path):
    shutil.copytree(once.root, tmp_path / "small")
    return Home(tmp_path / "small")


def rows(home, kind, drop=None, file=None):
    return pq.read_table(home.latest(kind, drop).path / (file or TABLES[kind])).to_pylist()


def pseudonym(home, name):
    [found] = {row["annotator"] for drop in DROPS for row in rows(home, "judgments", drop)} & set(
        forget.trace.names_of(home, name)
    )
    return found


def bury(home, plan, reason="Ticket 12", **options):
    return forget.bury(home, plan, person="Ada", reason=reason, **options)


def check(home, subject):
    return check_forgotten(home, ancestors(chain_of(home, subject)))


def test_the_next_tables_hold_nothing_of_an_annotator_and_everything_of_the_others(small, graph):
    alice = pseudonym(small, "alice")
    before = rows(small, "judgments", "may")
    bury(small, forget.plan_annotator(small, alice))
    made = graph.again(small, *drops_to_read_again(small))
    assert rows(small, "judgments", "may") == [row for row in before if row["annotator"] != alice]
    rejected = [
        (row["record_number"], row["reason"], row["detail"], row["excerpt"])
        for row in rows(small, "rejected_records", "may")
    ]
    hers = [row["record_number"] for row in before if row["annotator"] == alice]
    unquoted = "not quoted: somebody, or something, that is forgotten may stand in it"
    assert [row for row in rejected if row[1] == "forgotten"] == [
        (number, "forgotten", "its annotator withdrew", "") for number in hers
    ]
    hers_broken, bobs_broken, cut = [row for row in rejected if row[1] != "forgotten"]
    assert hers_broken == (21, "unknown_verdict", unquoted, "")
    assert bobs_broken[3].startswith('{"question": "')
    assert cut == (23, "invalid_json", unquoted, "")
    assert all(alice not in row["annotators"] for row in rows(small, "preference_pairs", file="pairs.parquet"))
    nodes = ancestors(chain_of(small, f"preference_pairs/{made.digest}"))
    assert [one.faults for one in (check_books(small, nodes), check_rows(small, nodes))] == [(), ()]
    assert check_forgotten(small, nodes).notes == ()


def test_a_drop_that_has_nothing_to_do_with_it_keeps_its_digests(small, graph):
    before = {(kind, drop): small.latest(kind, drop).digest for kind in TABLES for drop in DROPS}
    bury(small, forget.plan_annotator(small, "bob"))
    assert drops_to_read_again(small) == ["may", "june"]
    graph.again(small, *DROPS)
    assert drops_to_read_again(small) == []
    same = {place for place, digest in before.items() if small.latest(*place).digest == digest}
    assert same >= {(kind, "july") for kind in TABLES}
    assert not same & {(kind, drop) for kind in ("judgments", "rejected_records") for drop in ("may", "june")}


def test_two_tombstones_on_different_drops_leave_each_other_alone(small, graph):
    bury(small, forget.plan_annotator(small, "alice"))
    graph.again(small, "may")
    digest = small.latest("judgments", "may").digest
    bury(small, forget.plan_record(small, "july/examples.jsonl:1"))
    assert drops_to_read_again(small) == ["july"]
    graph.again(small, "may", "july")
    assert small.latest("judgments", "may").digest == digest
    assert rows(small, "demonstrations", "july") == []


def test_whoever_withdrew_is_left_out_of_a_later_drop_as_well(small, graph):
    bury(small, forget.plan_annotator(small, "alice"))
    write_drop(small, "august", ["alice", "dora"])
    graph.take_in(small, "august")
    assert {row["annotator"] for row in rows(small, "judgments", "august")} == {pseudonym(small, "dora")}
    assert drops_to_read_again(small) == ["may"]


def test_nothing_is_made_from_a_table_that_still_holds_it(small, graph):
    bury(small, forget.plan_annotator(small, "alice"))
    stale = small.latest("preference_pairs")
    for made in ("dpo_checkpoint", "sweep_point"):
        with pytest.raises(ArtifactError, match="rests on drop may as it was read before"):
            refuse_forgotten(small, made, stale)
    refuse_forgotten(small, "evaluation_report", stale)
    refuse_forgotten(small, "dpo_checkpoint", graph.again(small, "may"))


def test_an_audit_names_an_older_table_and_faults_a_model_made_since(small, published):
    stone = bury(small, forget.plan_annotator(small, "alice"))
    found = check(small, "preference_pairs")
    assert found.faults == ()
    took_back = f"the tombstone on ledger line {stone.number} took back ({stone.what}; Ticket 12)"
    assert found.notes == (f"rests on what {took_back}: 10 rows of judgments/may; learned from it: no checkpoint",)
    assert stone.what == f"annotator {pseudonym(small, 'alice')}"
    parents = (Parent("preference_pairs", "preference_pairs", small.latest("preference_pairs").digest),)
    with small.store.staging() as folder:
        (folder / "weights").write_text("w")
        made = published(small, Recipe("dpo_checkpoint", "1", {}, parents), folder, Outcome())
    faults = check(small, "dpo_checkpoint").faults
    assert any(str(made.path) in fault and "which holds 10 rows" in fault for fault in faults)


def test_a_table_read_since_that_still_holds_it_is_a_fault(small, published):
    stone = bury(small, forget.plan_annotator(small, "alice"))
    true = small.latest("judgments", "may")
    with small.store.staging() as folder:
        (folder / "judgments.parquet").write_bytes((true.path / "judgments.parquet").read_bytes())
        recipe = Recipe("judgments", "of another code", true.manifest["settings"], true.parents)
        made = published(small, recipe, folder, Outcome(true.counts, true.facts, true.books), "may")
    [fault] = check(small, f"judgments/{made.digest}").faults
    assert str(made.path) in fault
    assert f"holds 10 rows that the tombstone on ledger line {stone.number}" in fault


def test_the_checkpoints_that_learned_from_it_are_listed_and_their_attempts_marked(small, published):
    parents = (Parent("preference_pairs", "preference_pairs", small.latest("preference_pairs").digest),)
    with small.store.staging() as folder:
        (folder / "weights").write_text("w")
        made = published(small, Recipe("dpo_checkpoint", "1", {}, parents), folder, Outcome())
    attempt = small.latest_line("dpo_checkpoint")["attempt"]
    plan = forget.plan_annotator(small, "carol")
    assert [found.digest for found in plan.checkpoints] == [made.digest]
    assert f"are marked: dpo_checkpoint/{made.digest[:12]}" in forget.as_text(small, plan)
    stone = bury(small, plan)
    assert stone.checkpoints == (made.digest,)
    assert forget.marks_of(small) == {
        attempt: f"learned from records that are forgotten: tombstone on ledger line {stone.number} ({plan.what})"
    }
    assert f"learned from it: dpo_checkpoint/{made.digest[:12]}" in check(small, "dpo_checkpoint").notes[0]


def test_a_record_is_left_out_also_where_it_is_delivered_again(small, graph):
    bury(small, forget.plan_record(small, "may/verdicts.jsonl:1"))
    said = verdict("may", 0, "alice")
    again = {**said, "one": f"  {said['one'].upper()}\n"}
    write_drop(small, "later", ["dora"], extra=[verdict("may", 0, "bob"), again])
    graph.take_in(small, "later")
    graph.again(small, "may")
    found = [
        (row["record_number"], row["detail"])
        for row in rows(small, "rejected_records", "later")
        if row["reason"] == "forgotten"
    ]
    assert found == [(12, "its text was taken back")]
    assert [row["record_number"] for row in rows(small, "judgments", "may")] == list(range(2, 21))


def excerpts(home, drop):
    return {
        (row["record_number"], row["reason"]): row["excerpt"]
        for row in rows(home, "rejected_records", drop)
        if row["reason"] != "forgotten"
    }


def test_somebody_of_whom_nothing_could_be_used_can_be_forgotten(small, graph):
    """All of zoe's records were rejected, and one of them is no JSON: nothing of hers is quoted afterwards."""
    hers = {**verdict("may", 3, "zoe"), "verdict": "perhaps", "note": "My doctor said so."}
    write_drop(small, "zoes", ["dora"], extra=[hers])
    graph.take_in(small, "zoes")
    assert (
        "My doctor" not in excerpts(small, "zoes")[(11, "unknown_verdict")]
    )  # it lies behind the first 200 characters
    plan = forget.plan_annotator(small, "zoe")
    assert plan.drops == ("zoes",)
    assert "1 rejected: unknown_verdict" in forget.as_text(small, plan)
    bury(small, plan, unspeakable="zoe")
    assert "zoe" not in small.ledger.path.read_text().replace("zoes", "")
    assert drops_to_read_again(small) == ["zoes"]
    graph.again(small, "zoes")
    left = excerpts(small, "zoes")
    assert left[(11, "unknown_verdict")] == ""
    assert left[(12, "unknown_verdict")].startswith('{"question"')


def test_an_id_in_a_sheet_that_cannot_be_told_apart_is_found(small, graph):
    """The header names a column twice, so that it came as text: no JSON, and no bytes either."""
    folder = small.inbox / "sheets"
    folder.mkdir()
    (folder / "sheet.csv").write_text("prompt,who zoe,who zoe\nq,a,b\n")
    graph.take_in(small, "sheets")
    assert forget.plan_annotator(small, "who zoe").drops == ("sheets",)
    with pytest.raises(InputError):
        forget.plan_annotator(small, "nobody at all")


def test_a_drop_in_which_only_rejected_records_name_somebody_is_read_again_too(small, graph):
    extra = {**verdict("may", 3, "alice"), "verdict": "perhaps"}
    write_drop(small, "fourth", ["dora"], extra=[extra])
    graph.take_in(small, "fourth")
    assert forget.plan_annotator(small, "alice").drops == ("fourth", "may")


@pytest.mark.parametrize("subject", ["record", "pair"])
def test_an_unusable_copy_of_what_was_taken_back_is_not_quoted(small, graph, subject):
    """Delivered before and after the tombstone, in another shape each time; other unusable records stay quoted."""
    said = verdict("may", 4, "alice")
    broken = {**said, "verdict": "perhaps", "who": "dora"}
    write_drop(small, "before", ["dora"], extra=[broken])
    graph.take_in(small, "before")
    if subject == "record":
        plan = forget.plan_record(small, "may/verdicts.jsonl:9")
    else:
        pairs = rows(small, "preference_pairs", file="pairs.parquet")
        plan = forget.plan_pair(small, next(row["pair_id"] for row in pairs if said["one"] in str(row)))
    assert plan.drops == ("before", "may")
    bury(small, plan)
    nested = {"data": {"text": f"Human: {said['question'].upper()} Assistant:"}, "verdict": "left", "who": "dora"}
    write_drop(small, "after", ["dora"], extra=[nested, verdict("may", 5, "dora") | {"verdict": "perhaps"}])
    graph.take_in(small, "after")
    assert set(drops_to_read_again(small)) == {"before", "may"}
    graph.again(small, *drops_to_read_again(small))
    for drop in ("before", "after"):
        found = excerpts(small, drop)
        assert next(excerpt for (number, _), excerpt in found.items() if number == 11) == "", drop
        assert said["question"].casefold() not in str(found).casefold()
    assert excerpts(small, "after")[(12, "unknown_verdict")].startswith('{"question"')


def test_a_copy_that_breaks_off_is_found_in_a_drop_that_holds_nothing_else_of_it(small, graph):
    """No JSON, so it has no texts to compare; what came is looked through as it stands."""
    folder = small.inbox / "cut"
    folder.mkdir()
    said = verdict("may", 4, "alice")
    (folder / "cut.jsonl").write_text(json.dumps({**said, "who": "dora"})[:-30] + "\n")
    graph.take_in(small, "cut")
    assert said["question"] in str(excerpts(small, "cut"))
    plan = forget.plan_record(small, "may/verdicts.jsonl:9")
    assert plan.drops == ("cut", "may")
    bury(small, plan)
    graph.again(small, "cut", "may")
    assert said["question"] not in str(excerpts(small, "cut"))


def test_an_unusable_record_that_is_taken_back_is_not_quoted_where_it_is_delivered_again(small, graph):
    plan = forget.plan_record(small, "may/verdicts.jsonl:21")
    bury(small, plan)
    write_drop(small, "again", ["dora"], extra=[{**verdict("may", 0, "dora"), "verdict": "never"}])
    graph.take_in(small, "again")
    assert excerpts(small, "again")[(11, "unknown_verdict")] == ""


def test_a_pair_is_left_out_whoever_judged_it(small, graph):
    june = {row["judgment_id"] for row in rows(small, "judgments", "june")}
    pair = next(row for row in rows(small, "preference_pairs", file="pairs.parquet") if june & set(row["judgment_ids"]))
    bury(small, forget.plan_pair(small, pair["pair_id"]))
    graph.again(small, *drops_to_read_again(small))
    left = {row["judgment_id"] for row in rows(small, "judgments", "june")}
    assert len(pair["judgment_ids"]) == 2
    assert not left & set(pair["judgment_ids"])
    assert len(left) == 18


def test_the_ledger_never_holds_the_platforms_own_id(small):
    plan = forget.plan_annotator(small, "alice")
    with pytest.raises(InputError, match="holds the annotator's own id"):
        bury(small, plan, "Alice left", unspeakable="alice")
    bury(small, plan, unspeakable="alice")
    assert "alice" not in small.ledger.path.read_text()
    assert pseudonym(small, "alice") in small.ledger.path.read_text()


def test_an_id_that_two_people_bear_is_refused_with_both_pseudonyms(small, graph):
    write_drop(small, "vendor", ["alice"])
    (small.inbox / "vendor" / "drop.yaml").write_text(
        MAPPING.replace("mapping:", "annotator_namespace: v/\n    mapping:")
    )
    graph.take_in(small, "vendor")
    with pytest.raises(InputError, match=r"stands for 2 annotators: \w{16} \(10 judgments\), \w{16} \(10 judgments\)"):
        forget.plan_annotator(small, "alice")


def test_a_tombstone_needs_a_reason_and_something_known(small):
    with pytest.raises(InputError, match="no reason is given"):
        bury(small, forget.plan_annotator(small, "alice"), " ")
    for plan_of, unknown in (
        (forget.plan_annotator, "nobody"),
        (forget.plan_record, "may/verdicts.jsonl:99"),
        (forget.plan_pair, "f" * 32),
    ):
        with pytest.raises(InputError, match="nothing that was read is of"):
            plan_of(small, unknown)
    bury(small, forget.plan_record(small, "may/verdicts.jsonl:1"))
    with pytest.raises(InputError, match="is forgotten already"):
        forget.plan_record(small, "may/verdicts.jsonl:1")
    assert len(tombstones(small)) == 1


def test_under_another_key_nothing_is_read_or_trained_and_an_audit_says_why(small, graph):
    """Whoever withdrew would come back unrecognised: so the reading is refused, not done without them."""
    stone = bury(small, forget.plan_annotator(small, "alice"))
    (small.root / "keys" / "pseudonym.key").write_bytes(b"another key, of thirty-two bytes")
    with pytest.raises(
        InputError, match=f"tombstone on ledger line {stone.number} was written under another pseudonym key"
    ):
        graph.again(small, "may")
    with pytest.raises(InputError, match="under another pseudonym key"):
        refuse_forgotten(small, "dpo_checkpoint", small.latest("preference_pairs"))
    found = check(small, "preference_pairs")
    assert f"tombstones on ledger lines {stone.number} were written" in found.not_run
    (small.root / "keys" / "pseudonym.key").unlink()
    assert check(small, "preference_pairs").not_run == found.not_run
    assert not (small.root / "keys" / "pseudonym.key").exists()


def test_the_preview_says_that_todays_champion_learned_from_it(small, published):
    parents = (Parent("preference_pairs", "preference_pairs", small.latest("preference_pairs").digest),)
    with small.store.staging() as folder:
        (folder / "weights").write_text("w")
        made = published(small, Recipe("dpo_checkpoint", "1", {}, parents), folder, Outcome())
    plan = forget.plan_annotator(small, "carol")
    assert "champion" not in forget.as_text(small, plan)
    promote(small, Promotion(made.digest, None, "r" * 64, "d" * 64))
    assert "Today's champion learned from it." in forget.as_text(small, plan)


def test_training_does_not_go_on_from_a_champion_that_learned_from_it(small, graph, published):
    """Its weights keep what was taken back, and no reading of any drop changes that: so begin from the base model."""
    parents = (Parent("preference_pairs", "preference_pairs", small.latest("preference_pairs").digest),)
    with small.store.staging() as folder:
        (folder / "weights").write_text("w")
        made = published(small, Recipe("dpo_checkpoint", "1", {}, parents), folder, Outcome())
    promote(small, Promotion(made.digest, None, "r" * 64, "d" * 64))
    assert start_of(small, "champion") == {"champion": made}
    bury(small, forget.plan_annotator(small, "alice"))
    graph.again(small, *drops_to_read_again(small))
    assert start_of(small, "champion") == {}
