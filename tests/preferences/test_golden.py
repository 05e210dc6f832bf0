"""A golden set: pinned by its digest, held out with all that resembles it, evaluated with its own verdict."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_worlds import HiddenLikeness, judgment

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.dpo.pairs import iterate_pairs
from dpo_pipeline.evaluation.held_out import read_held_out
from dpo_pipeline.preferences import prompt_index
from dpo_pipeline.preferences.golden import golden_leaks, golden_rows, held_out_rows, read_golden
from dpo_pipeline.preferences.pinned import GoldenSet
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import signatures
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, TRAIN, draws_of, split_prompts
from dpo_pipeline.sft.held_out import HeldOutPrompts

QUESTION = "Where is my parcel with the blue lamp that I ordered on Monday last week from your shop in the old town"


@dataclass
class Golden:
    """A golden set on disk."""

    path: object

    def write(self, items, name="golden.jsonl"):
        path = self.path / name
        path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        return GoldenSet(path=str(path), sha256=sha256_of_file(path), name="golden of May")


@pytest.fixture
def golden(tmp_path):
    return Golden(tmp_path)


def pair(prompt, chosen="It comes today.", rejected="No idea."):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_texts_and_conversations_are_read_each_pair_once_sorted(golden):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": QUESTION}]
    reply = [*turns, {"role": "assistant", "content": "It comes today."}]
    items = [pair("Hello?", "Hi.", "Yo."), pair("Hello?", "Hi.", "Yo."), pair(turns, reply, "No idea.")]
    table = read_golden(golden.write(items), similarity=0.5)
    assert table["pair_id"].to_pylist() == sorted(set(table["pair_id"].to_pylist()))
    rows = {row["prompt"][-1]["content"]: row for row in table.to_pylist()}
    assert set(rows) == {"Hello?", QUESTION}
    assert (rows[QUESTION]["prompt"], rows[QUESTION]["chosen"]) == (turns, "It comes today.")
    assert {(row["split"], row["drops"][0], row["sources"][0]) for row in rows.values()} == {
        ("held_out", "golden of May", "golden_set")
    }


def test_a_parquet_file_gives_the_same_pairs(golden, tmp_path):
    items = [pair(QUESTION), pair("Hello?", "Hi.", "Yo.")]
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "golden.parquet")
    other = GoldenSet(
        path=str(tmp_path / "golden.parquet"), sha256=sha256_of_file(tmp_path / "golden.parquet"), name="golden of May"
    )
    assert read_golden(other, similarity=0.5).equals(read_golden(golden.write(items), similarity=0.5))


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ({"prompt": "Hello?", "chosen": "Hi."}, "item 2 of .* is no pair"),
        ({"prompt": "", "chosen": "Hi.", "rejected": "Yo."}, "item 2 of .* is no pair"),
        ({"prompt": [{"role": "user"}], "chosen": "Hi.", "rejected": "Yo."}, "item 2 of .* is no pair"),
        (["Hello?"], "item 2 of .* is no pair"),
        (pair("Hello \ud800?"), "item 2 of .* is no pair: it holds half a character"),
        (pair([{"role": "user", "content": " "}]), r"item 2 of .* is no pair: turn 1 \(user\) is empty"),
        (
            pair([{"role": "assistant", "content": "Hi."}]),
            "is no pair: the last turn is the assistant's, the user's was",
        ),
        (
            {"prompt": "Hello?", "chosen": "Hi.", "rejected": " hi. "},
            "chosen and rejected of item 2 of .* are the same",
        ),
    ],
)
def test_what_is_no_pair_is_named(golden, item, found):
    with pytest.raises(InputError, match=found):
        read_golden(golden.write([pair("First?"), item]), similarity=0.5)


def test_another_file_than_the_one_pinned_is_refused(golden):
    pinned = golden.write([pair("Hello?")])
    golden.write([pair("Hello?"), pair("Bye?")])
    with pytest.raises(InputError, match="has the SHA-256"):
        read_golden(pinned, similarity=0.5)


def test_near_copies_among_golden_prompts_share_a_cluster(golden):
    items = [pair(QUESTION), pair(QUESTION.replace("blue", "red")), pair("Something else entirely, please help me now")]
    clusters = read_golden(golden.write(items), similarity=0.5).to_pylist()
    by_prompt = {row["prompt"][0]["content"]: row["cluster_id"] for row in clusters}
    assert by_prompt[items[0]["prompt"]] == by_prompt[items[1]["prompt"]] != by_prompt[items[2]["prompt"]]


def test_golden_prompts_and_what_resembles_them_never_train(golden, world):
    copies = [QUESTION, QUESTION.replace("blue", "green"), f"Hi! {QUESTION}"]
    prompts = [*copies, *(f"Question number {at} about thing {at * 7} and matter {at * 13}" for at in range(40))]
    drop = world.drop("may", [judgment(text, f"good {text}", f"bad {text}") for text in prompts])
    plain = PreferenceSettings(held_out_share=0.001)
    pinning = plain.model_copy(update={"golden_set": golden.write([pair(QUESTION)])})
    (out, outcome), (without, _) = (world.build(drop, settings=settings) for settings in (pinning, plain))
    sides = {row["prompt"][-1]["content"]: row["split"] for row in pq.read_table(out / "pairs.parquet").to_pylist()}
    assert {sides[text] for text in copies if text in sides} == {"held_out"}
    assert sum(side == "train" for side in sides.values()) >= 35
    assert (outcome.counts["pairs_golden"], outcome.counts["prompts_like_golden"]) == (1, 3)
    assert outcome.books.is_balanced
    assert golden_leaks(out, similarity=0.5) == []
    assert golden_rows(without).num_rows == 0
    (without / "golden_pairs.parquet").write_bytes((out / "golden_pairs.parquet").read_bytes())
    assert golden_leaks(without, similarity=0.5)  # where the set was not pinned its near copies are found in training
    demonstrations = [[{"role": "user", "content": text}] for text in (QUESTION, f"{QUESTION} please", prompts[-1])]
    _, reasons = HeldOutPrompts(out, similarity=0.5).reasons(demonstrations)
    assert reasons == ["prompt_held_out", "prompt_near_held_out", None]


def test_a_pair_that_was_also_judged_counts_once_and_with_the_golden_verdict(golden, world):
    drop = world.drop("may", [judgment(QUESTION, "It comes today.", "No idea.")])
    pinned = golden.write([pair(QUESTION, chosen="No idea.", rejected="It comes today.")])
    out, _ = world.build(drop, settings=PreferenceSettings(golden_set=pinned))
    assert pq.read_table(out / "pairs.parquet")["chosen"].to_pylist() == ["It comes today."]
    assert held_out_rows(out, ["chosen"])["chosen"].to_pylist() == ["No idea."]


@given(data=st.data(), count=st.integers(1, 25))
def test_law_pinning_moves_no_prompt_from_held_out_to_train_and_trains_on_none_that_is_connected(data, count):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ids = np.sort(random.integers(0, 2**63, count).astype(np.uint64))
    prompts = np.stack([ids, ids], axis=1)
    drops = np.sort(random.integers(0, 4, count))[random.permutation(count)]
    edges = random.integers(0, count, (data.draw(st.integers(0, 30)), 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    pinned = random.random(count) < 0.2
    crowd = HiddenLikeness(count, random.integers(0, count, (data.draw(st.integers(0, 30)), 2)))
    plain, with_pin = (
        split_prompts(draws_of(prompts, "s"), drops, edges, share=0.4, pinned=some, crowd=crowd).side
        for some in (None, pinned)
    )
    assert not ((plain == HELD_OUT) & (with_pin == TRAIN)).any()
    assert (with_pin[pinned] != TRAIN).all()
    same_drop = edges[(drops[edges[:, 0]] == drops[edges[:, 1]])]
    for left, right in same_drop:
        assert not (pinned[left] and with_pin[right] == TRAIN)
    none = np.zeros(count, bool)
    nobody = split_prompts(draws_of(prompts, "s"), drops, edges, share=0.4, pinned=none, crowd=crowd)
    assert (nobody.side == plain).all()
    assert set(np.unique(with_pin)) <= {TRAIN, HELD_OUT, QUARANTINED}


def test_the_reference_scores_golden_pairs_and_the_evaluation_asks_them_first(golden, world, tmp_path):
    texts = [f"Question number {at} about thing {at * 7} and matter {at * 13}" for at in range(30)]
    drop = world.drop("may", [judgment(text, f"good {text}", f"bad {text}") for text in [QUESTION, *texts]])
    pinned = golden.write([pair(QUESTION), pair(QUESTION, f"good {QUESTION}", f"bad {QUESTION}")])
    out, _ = world.build(drop, settings=PreferenceSettings(golden_set=pinned, held_out_share=0.3))
    own = set(golden_rows(out, ["pair_id"])["pair_id"].to_pylist())
    read = [row for block in iterate_pairs(out) for row in block]
    names = [row["pair_id"] for row in read]
    assert (len(names), len(set(names)), own <= set(names)) == (32, 32, True)
    assert {row["split"] for row in read if row["pair_id"] in own} == {"held_out"}
    assert not own & {row["pair_id"] for block in iterate_pairs(out, "train") for row in block}
    held_out = read_held_out(out, None, prompt_count=3, learned=[[{"role": "user", "content": QUESTION}, {}]])
    assert own <= {row["pair_id"] for row in held_out.pairs}
    assert held_out.prompts[0]["prompt"][0]["content"] == QUESTION
    assert held_out.prompts[0]["drops"] == ["golden of May"]
    assert held_out.contamination["in_demonstrations"] == 1
    assert held_out.contamination["in_training_pairs"] == 0


def test_what_is_asked_about_is_sketched_once(world, monkeypatch):
    """However many indexes of prompts kept out of training there are."""
    tied = judgment("What stands on the table at noon?", "Bread.", "Salt.", "tie")
    out, _ = world.build(world.drop("may", [tied, judgment("Who sits at the door at night?", "Nobody.", "A dog.")]))
    held_out, sketched_prompts = HeldOutPrompts(out, similarity=0.5), []
    monkeypatch.setattr(
        prompt_index, "signatures", lambda sets, **how: sketched_prompts.append(len(sets)) or signatures(sets, **how)
    )
    held_out.reasons([[{"role": "user", "content": "Where is the moon by day?"}]] * 3)
    assert sketched_prompts == [3]
