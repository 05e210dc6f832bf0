"""Demonstrations in the ledger of splits: what an earlier drop may have taught is held out by no later one."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_worlds import judgment, tiny

from dpo_pipeline.preferences.demonstrated import Demonstrations
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, TRAIN, draws_of, split_prompts
from dpo_pipeline.sft.held_out import HeldOutPrompts

SETTINGS = PreferenceSettings(consensus="majority", held_out_share=0.5)
SUBJECTS = (
    "lamp",
    "tent",
    "kettle",
    "bicycle",
    "violin",
    "ladder",
    "jacket",
    "teapot",
    "mirror",
    "carpet",
    "drill",
    "oven",
)


def asked(subject):
    """A prompt that shares hardly a word pair with those of other subjects."""
    return " ".join(f"{subject}{number}" for number in range(12))


def nearly(subject):
    """A near copy: 9 of its 11 word pairs are the other's, of 13 in all."""
    return asked(subject).replace(f"{subject}5", f"{subject}x")


def pairs_on(prompts):
    return [judgment(prompt, f"First answer to {prompt}.", f"Another, {prompt}.") for prompt in prompts]


def table(out, name, key="prompt_id"):
    return {row[key]: row for row in pq.read_table(out / name).to_pylist()}


def held_out_texts(out):
    rows = pq.read_table(out / "pairs.parquet", filters=[("split", "=", "held_out")]).to_pylist()
    return {row["prompt"][0]["content"] for row in rows}


TAUGHT, FRESH = SUBJECTS[:6], SUBJECTS[6:]


@pytest.mark.parametrize("said", [asked, nearly])
def test_what_an_earlier_drop_taught_is_not_held_out(world, said):
    """Of twelve prompts six are demonstrated a drop before; under `draw` some of the six are held out."""
    may = world.drop("may", [], taught=[asked(subject) for subject in TAUGHT])
    june = world.drop("june", pairs_on(map(said, SUBJECTS)))
    out, outcome = world.build(may, june, settings=SETTINGS)
    held_out = held_out_texts(out)
    assert held_out
    assert held_out <= {said(subject) for subject in FRESH}
    assert outcome.counts["prompts_like_demonstrations"] == outcome.counts["demonstrated_prompts"] == 6
    assert outcome.counts["demonstrated_prompts_kept_out"] == 0
    drawn = SETTINGS.model_copy(update={"demonstrated_earlier": "draw"})
    as_drawn, _ = world.build(may, june, settings=drawn)
    assert held_out_texts(as_drawn) - held_out
    assert held_out_texts(as_drawn) & {said(subject) for subject in FRESH} == held_out


@pytest.mark.parametrize("order", ["same drop", "later drop"])
def test_what_is_held_out_first_stays_and_is_not_taught(world, order):
    """The sides are those without demonstrations; SFT leaves out just what is like a held-out prompt."""
    rows, said = pairs_on(map(asked, SUBJECTS)), [nearly(subject) for subject in SUBJECTS]
    drops = [world.drop("may", rows, taught=said)]
    if order == "later drop":
        drops = [world.drop("may", rows), world.drop("june", pairs_on(["one more thing to ask"]), taught=said)]
    plain, _ = world.build(world.drop("may", rows), settings=SETTINGS)
    out, outcome = world.build(*drops, settings=SETTINGS)
    sides, before = (table(folder, "splits.parquet") for folder in (out, plain))
    assert {name: sides[name]["split"] for name in before} == {name: row["split"] for name, row in before.items()}
    count = len(held_out_texts(plain))
    assert 0 < outcome.counts["demonstrated_prompts_kept_out"] == count < len(SUBJECTS)
    _, reasons = HeldOutPrompts(out, similarity=0.5).reasons([[{"role": "user", "content": text}] for text in said])
    assert reasons.count("prompt_near_held_out") == count
    assert reasons.count(None) == len(SUBJECTS) - count


def test_what_was_kept_out_of_training_pins_nothing(world):
    """A demonstration like a held-out prompt is never learned: a later near copy joins the held-out cluster."""
    may = world.drop("may", pairs_on([asked(subject) for subject in SUBJECTS]), taught=map(nearly, SUBJECTS))
    first, _ = world.build(may, settings=SETTINGS)
    held_out = {text.split()[0].rstrip("0") for text in held_out_texts(first)}
    june = world.drop("june", pairs_on([nearly(subject) for subject in SUBJECTS]))
    out, _ = world.build(may, june, settings=SETTINGS)
    assert {nearly(subject) for subject in held_out} == held_out_texts(out) - held_out_texts(first)
    assert held_out_texts(first) <= held_out_texts(out)


def test_a_tie_that_is_held_out_is_taught_by_no_near_copy(world):
    """It has no pair in the table today; a further verdict may give it one tomorrow."""
    rows = [judgment(asked(subject), "First.", "Second.", "tie") for subject in SUBJECTS]
    out, _ = world.build(world.drop("may", [*rows, *pairs_on(["something else"])]), settings=SETTINGS)
    sides = [row["split"] for row in table(out, "splits.parquet").values()]
    said = [[{"role": "user", "content": nearly(subject)}] for subject in SUBJECTS]
    _, reasons = HeldOutPrompts(out, similarity=0.5).reasons(said)
    assert (
        0
        < reasons.count("prompt_near_held_out")
        <= sides.count("held_out")
        <= reasons.count("prompt_near_held_out") + 1
    )


def three_drops(world):
    return [
        world.drop("may", pairs_on(map(asked, SUBJECTS[:4])), taught=map(nearly, SUBJECTS[2:8])),
        world.drop("june", pairs_on(map(asked, SUBJECTS[:9])), taught=map(asked, SUBJECTS[8:10])),
        world.drop("july", pairs_on([*map(nearly, SUBJECTS), *map(asked, SUBJECTS)])),
    ]


def test_drops_built_one_by_one_search_nothing_again_and_give_the_same_bytes(world, monkeypatch):
    drops, known, searched = three_drops(world), [], []
    near = Demonstrations._near
    monkeypatch.setattr(
        Demonstrations, "_near", lambda self, one, other: searched.append(len(one)) or near(self, one, other)
    )
    for last in (1, 2, 3):
        step, _ = world.build(*drops[:last], settings=SETTINGS, known=known)
        known = [step]
    searched.clear()
    again, _ = world.build(*drops, settings=SETTINGS, known=known)
    assert searched == []
    tiny(monkeypatch)
    at_once, outcome = world.build(*three_drops(world), settings=SETTINGS)
    assert 0 < outcome.counts["prompts_like_demonstrations"] < outcome.counts["prompts"]
    for path in at_once.iterdir():
        assert (step / path.name).read_bytes() == path.read_bytes(), path.name
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_drop_without_demonstrations_has_no_file_of_them(world):
    drop = world.drop("may", pairs_on([asked("lamp")]))
    out, outcome = world.build(drop, settings=SETTINGS)
    assert not [path.name for folder in (out, drop.sketches) for path in folder.iterdir() if "taught" in path.name]
    assert not (out / "demonstrated_prompts.parquet").exists()
    assert "demonstrated_prompts" not in outcome.counts


class Linked:
    """Demonstrations whose likenesses to prompts are given, `(E, 2)`: prompt and demonstration."""

    def __init__(self, first_drop, came, links):
        self.first_drop, self.came, self.links = first_drop, came, links
        self.is_kept_out = np.zeros(len(came), bool)
        self.drops = 4

    def like(self, drop):
        prompt, told = self.links.T
        return np.unique(prompt[(self.first_drop[prompt] == drop) & (self.came[told] < drop) & ~self.is_kept_out[told]])

    def learn(self, drop, side):
        prompt, told = self.links.T
        is_out = np.isin(side[prompt], (HELD_OUT, QUARANTINED)) & (self.came[told] == drop)
        self.is_kept_out[told[is_out]] = True


@st.composite
def arrivals(draw):
    count, told = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    drops, came = (np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int16) for n in (count, told))
    row = st.integers(0, count - 1)
    edges = st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=10)
    links = st.lists(st.tuples(row, st.integers(0, told - 1)), max_size=10)
    some, like = (np.array(draw(of), np.int64).reshape(-1, 2) for of in (edges, links))
    prompts = np.stack([np.arange(count, dtype=np.uint64), np.full(count, draw(st.integers(0, 99)), np.uint64)], axis=1)
    return draws_of(prompts, "test"), drops, some, came, like


def replay(world, **given_):
    draws, drops, edges, came, links = world
    taught = Linked(drops, came, links)
    return split_prompts(draws, drops, edges, share=0.4, taught=taught, **given_), taught


@given(arrivals())
def test_nothing_held_out_is_like_what_may_have_been_learned(world):
    result, taught = replay(world)
    for prompt, told in world[4]:
        assert result.side[prompt] != HELD_OUT or taught.is_kept_out[told]
    for one, other in world[2]:
        assert {TRAIN, HELD_OUT} != {int(result.side[one]), int(result.side[other])}


@given(arrivals())
def test_demonstrations_hold_nothing_out_and_a_later_drop_changes_nothing(world):
    draws, drops, edges, came, links = world
    result, taught = replay(world)
    plain = split_prompts(draws, drops, edges, share=0.4)
    assert set(np.flatnonzero(result.side == HELD_OUT)) <= set(np.flatnonzero(plain.side == HELD_OUT))
    for last in range(3):
        early = np.flatnonzero(drops <= last)
        place = np.full(len(drops), -1)
        place[early] = np.arange(len(early))
        some = place[edges[(drops[edges] <= last).all(axis=1)]].reshape(-1, 2)
        now = links[(drops[links[:, 0]] <= last) & (came[links[:, 1]] <= last)]
        among = np.stack([place[now[:, 0]], now[:, 1]], axis=1)
        before, then = replay((draws[early], drops[early], some, came, among))
        assert before.side.tolist() == result.side[early].tolist()
        assert then.is_kept_out[came <= last].tolist() == taught.is_kept_out[came <= last].tolist()


@given(arrivals(), st.data())
def test_pinning_golden_prompts_trains_nobody_beside_demonstrations(world, data):
    count = len(world[1])
    pinned = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    (plain, _), (golden, _) = replay(world), replay(world, pinned=pinned)
    assert set(np.flatnonzero(golden.side == TRAIN)) <= set(np.flatnonzero(plain.side == TRAIN))
