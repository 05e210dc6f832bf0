"""The sticky split: laws over random prompts, drops and edges."""

import importlib.util
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, TRAIN, draws_of, split_prompts


@st.composite
def arrivals(draw):
    """Prompts with their drops and edges between them; prompts are sorted by identity, as the catalogue has them."""
    count = draw(st.integers(1, 14))
    drops = np.array(draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)), np.int16)
    row = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=16))
    prompts = np.stack([np.arange(count, dtype=np.uint64), np.full(count, draw(st.integers(0, 99)), np.uint64)], axis=1)
    return prompts, drops, np.array(pairs, np.int64).reshape(-1, 2)


def split(prompts, drops, edges, *, salt="test", **given_):
    return split_prompts(draws_of(prompts, salt), drops, edges, **{"share": 0.4, **given_})


@given(arrivals())
def test_no_edge_joins_the_two_sides(world):
    prompts, drops, edges = world
    result = split(prompts, drops, edges)
    for one, other in edges:
        assert {TRAIN, HELD_OUT} != {int(result.side[one]), int(result.side[other])}


@given(arrivals())
def test_a_later_drop_changes_nothing(world):
    """Law: the split of the first drops is the same whether or not later ones are there."""
    prompts, drops, edges = world
    everything = split(prompts, drops, edges)
    for last in range(4):
        early = np.flatnonzero(drops <= last)
        place = np.full(len(drops), -1)
        place[early] = np.arange(len(early))
        known = place[edges[(drops[edges] <= last).all(axis=1)]]
        before = split(prompts[early], drops[early], known.reshape(-1, 2))
        assert before.side.tolist() == everything.side[early].tolist()
        assert early[before.cluster].tolist() == everything.cluster[early].tolist()


@given(arrivals(), st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(world, chance):
    prompts, drops, edges = world
    shuffled = edges.tolist()
    chance.shuffle(shuffled)
    turned = np.array([pair[::-1] if chance.random() < 0.5 else pair for pair in shuffled], np.int64).reshape(-1, 2)
    here, there = split(prompts, drops, edges), split(prompts, drops, turned)
    assert here.side.tolist() == there.side.tolist()
    assert here.cluster.tolist() == there.cluster.tolist()


@given(arrivals())
def test_a_cluster_stands_on_one_side(world):
    result = split(*world)
    for cluster in set(result.cluster.tolist()):
        assert len(set(result.side[result.cluster == cluster].tolist())) == 1


def test_the_share_is_kept_and_the_salt_matters():
    count = 20_000
    prompts = np.random.default_rng(0).integers(0, 2**63, (count, 2)).astype(np.uint64)
    none = np.zeros((0, 2), np.int64)
    here = split(prompts, np.zeros(count, np.int16), none, share=0.1)
    assert abs((here.side == HELD_OUT).mean() - 0.1) < 0.01
    there = split(prompts, np.zeros(count, np.int16), none, share=0.1, salt="another")
    assert (here.side != there.side).any()


def test_a_newcomer_joins_and_a_bridge_is_quarantined():
    """0 and 1 come first, on different sides; 2 resembles 0, 3 resembles both, 4 resembles only 3."""
    prompts = np.stack([np.arange(5, dtype=np.uint64), np.zeros(5, np.uint64)], axis=1)
    drops = np.array([0, 0, 1, 1, 2], np.int16)
    salt = next(
        salt
        for salt in map(str, range(99))
        if sorted(split(prompts[:2], drops[:2], np.zeros((0, 2), np.int64), salt=salt).side) == [TRAIN, HELD_OUT]
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
