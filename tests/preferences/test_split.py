"""The sticky split: laws over random prompts, drops and edges."""

import importlib.util
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from preference_worlds import HiddenLikeness

from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, TRAIN, Searched, draws_of, split_prompts


@st.composite
def arrivals(draw):
    """Prompts with their drops and edges between them; prompts are sorted by identity, as the catalogue has them."""
    count = draw(st.integers(1, 14))
    drops = np.array(draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)), np.int16)
    row = st.integers(0, count - 1)
    edges = st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=16)
    pairs, hidden = (np.array(draw(edges), np.int64).reshape(-1, 2) for _ in range(2))
    prompts = np.stack([np.arange(count, dtype=np.uint64), np.full(count, draw(st.integers(0, 99)), np.uint64)], axis=1)
    return prompts, drops, pairs, hidden


NOTHING = np.zeros((0, 2), np.int64)


def split(prompts, drops, edges, hidden=NOTHING, *, salt="test", **given_):
    """`hidden` are likenesses in a crowd that the split has to find by itself."""
    crowd = HiddenLikeness(len(drops), hidden)
    return split_prompts(draws_of(prompts, salt), drops, edges, **{"share": 0.4, "crowd": crowd, **given_})


@given(arrivals())
def test_neither_an_edge_nor_a_likeness_in_a_crowd_joins_the_two_sides(world):
    result = split(*world)
    for one, other in np.concatenate(world[2:]):
        assert {TRAIN, HELD_OUT} != {int(result.side[one]), int(result.side[other])}


@given(arrivals())
def test_a_later_drop_changes_nothing(world):
    """Law: the split of the first drops is the same whether or not later ones are there."""
    prompts, drops, edges, hidden = world
    everything = split(*world)
    for last in range(4):
        early = np.flatnonzero(drops <= last)
        place = np.full(len(drops), -1)
        place[early] = np.arange(len(early))
        among = [place[some[(drops[some] <= last).all(axis=1)]].reshape(-1, 2) for some in (edges, hidden)]
        before = split(prompts[early], drops[early], *among)
        assert before.side.tolist() == everything.side[early].tolist()
        assert early[before.cluster].tolist() == everything.cluster[early].tolist()
        assert before.is_apart.tolist() == everything.is_apart[early].tolist()


@given(arrivals(), st.integers(0, 5))
def test_what_an_earlier_build_searched_is_taken_over_and_searched_no_more(world, covered):
    """The prompts of the first drops need not be asked about again: what was set apart among them says enough."""
    prompts, drops, edges, hidden = world
    fresh = split(*world)
    apart = np.flatnonzero(fresh.is_apart & (drops < covered))
    asked = []

    class Watched(HiddenLikeness):
        def near(self, asked_, others):
            asked.extend(asked_.tolist())
            return super().near(asked_, others)

    resumed = split(prompts, drops, edges, crowd=Watched(len(drops), hidden), searched=Searched(covered, apart))
    assert [some.tolist() for some in resumed] == [some.tolist() for some in fresh]
    assert (drops[asked] >= covered).all()


@given(arrivals())
def test_only_who_leaks_is_set_apart(world):
    """Against the split by edges alone: all stand where they stood, but each that is set apart is like one across."""
    prompts, drops, edges, hidden = world
    plain, result = split(prompts, drops, edges), split(*world)
    if not result.is_apart.any():
        assert plain.side.tolist() == result.side.tolist()
    first = drops[result.is_apart].min(initial=9)
    stays = (drops <= first) & ~result.is_apart
    assert result.side[stays].tolist() == plain.side[stays].tolist()
    for prompt in np.flatnonzero(result.is_apart & (drops == first)):
        like = [other for edge in hidden if prompt in edge for other in edge if drops[other] <= first]
        assert {int(plain.side[other]) for other in like} >= {TRAIN, HELD_OUT}


def test_a_leak_in_a_crowd_costs_the_newcomer_then_the_trained():
    """0 (train) and 1 (held out) come first; 2, like 0, would be held out; 3, like 1, would be trained on.

    4 and 5, which come with them and are like each other, would stand on either side: the trained one gives way.
    """
    prompts = np.stack([np.arange(6, dtype=np.uint64), np.zeros(6, np.uint64)], axis=1)
    drops = np.array([0, 0, 1, 1, 1, 1], np.int16)
    wanted = [TRAIN, HELD_OUT, HELD_OUT, TRAIN, TRAIN, HELD_OUT]
    salt = next(
        salt for salt in map(str, range(999)) if split(prompts, drops, NOTHING, salt=salt).side.tolist() == wanted
    )
    result = split(prompts, drops, NOTHING, np.array([[0, 2], [3, 1], [4, 5]]), salt=salt)
    assert result.is_apart.tolist() == [False, False, True, True, True, False]
    assert result.side.tolist() == [TRAIN, HELD_OUT, QUARANTINED, QUARANTINED, QUARANTINED, HELD_OUT]
    assert result.cluster.tolist() == [0, 1, 2, 3, 4, 5]


@given(arrivals(), st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(world, chance):
    prompts, drops, edges, hidden = world
    shuffled = edges.tolist()
    chance.shuffle(shuffled)
    turned = np.array([pair[::-1] if chance.random() < 0.5 else pair for pair in shuffled], np.int64).reshape(-1, 2)
    here, there = split(prompts, drops, edges, hidden), split(prompts, drops, turned, hidden[::-1])
    assert here.side.tolist() == there.side.tolist()
    assert here.cluster.tolist() == there.cluster.tolist()


@given(arrivals())
def test_a_cluster_stands_on_one_side_but_for_who_is_set_apart(world):
    result = split(*world)
    assert (result.side[result.is_apart] == QUARANTINED).all()
    for cluster in set(result.cluster.tolist()):
        assert len(set(result.side[(result.cluster == cluster) & ~result.is_apart].tolist())) <= 1


def test_the_share_is_kept_and_the_salt_matters():
    count = 20_000
    prompts = np.random.default_rng(0).integers(0, 2**63, (count, 2)).astype(np.uint64)
    here = split(prompts, np.zeros(count, np.int16), NOTHING, share=0.1)
    assert abs((here.side == HELD_OUT).mean() - 0.1) < 0.01
    there = split(prompts, np.zeros(count, np.int16), NOTHING, share=0.1, salt="another")
    assert (here.side != there.side).any()


def test_a_newcomer_joins_and_a_bridge_is_quarantined():
    """0 and 1 come first, on different sides; 2 resembles 0, 3 resembles both, 4 resembles only 3."""
    prompts = np.stack([np.arange(5, dtype=np.uint64), np.zeros(5, np.uint64)], axis=1)
    drops = np.array([0, 0, 1, 1, 2], np.int16)
    salt = next(
        salt
        for salt in map(str, range(99))
        if sorted(split(prompts[:2], drops[:2], NOTHING, salt=salt).side) == [TRAIN, HELD_OUT]
    )
    result = split(prompts, drops, np.array([[0, 2], [0, 3], [3, 1], [3, 4]]), salt=salt)
    assert result.side[2] == result.side[0]
    assert result.cluster[2] == 0
    assert result.side[3] == QUARANTINED
    assert result.side[4] in (TRAIN, HELD_OUT)


def test_ten_drops_of_edited_prompts_leak_nothing_and_move_nothing(tmp_path, monkeypatch):
    """The benchmark's simulation, small; the hash of the prompt leaks on the same rows, so there is much to find."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    spec = importlib.util.spec_from_file_location("bench_split", benchmarks / "bench_split.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = bench.simulate(1_500, 3, tmp_path)
    assert found["ours"]["held_out_rows"] > 50
    assert found["ours"]["leaked_by_similarity"] == 0
    assert found["ours"]["moved_rows"] == 0
    assert found["hash of the prompt"]["leaked_by_similarity"] > 0.2
    assert found["random, drawn anew"]["moved_rows"] > 100
