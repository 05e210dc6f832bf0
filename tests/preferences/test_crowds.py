"""Crowds of prompts made from one template: nothing held out has a near copy in training, whichever way drops come."""

import itertools
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_worlds import World, judgment

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences import deduplicate
from dpo_pipeline.preferences.crowds import Crowd
from dpo_pipeline.preferences.leakage import near_leaks
from dpo_pipeline.preferences.prompt_index import sketched
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.shingles import Shingles
from dpo_pipeline.preferences.spill import Scratch

SETTINGS = PreferenceSettings(consensus="majority", held_out_share=0.3)
DROPS = 4


def template_prompts(count, words=24, varied=4, seed=5):
    """Prompts that share all but a few words with one template: their similarity is mostly 0.3 to 0.45, now and then
    0.5 and more."""
    chance = np.random.default_rng(seed)
    vocabulary = [f"word{number}" for number in range(3_000)]
    template = chance.choice(vocabulary, words)
    prompts = []
    for _ in range(count):
        text = template.copy()
        text[chance.choice(words, varied, replace=False)] = chance.choice(vocabulary, varied)
        prompts.append(" ".join(text))
    return prompts


def drops_of(world, prompts, settings=SETTINGS):
    rows = [judgment(prompt, f"First answer {at}.", f"Second one, {at}.") for at, prompt in enumerate(prompts)]
    size = -(-len(rows) // DROPS)
    return [world.drop(f"drop-{at}", rows[at * size : (at + 1) * size], settings=settings) for at in range(DROPS)]


def leaks_by_comparing_all(out):
    """Held-out prompts with a trained one that shares a band's key and half of the word pairs, all pairs looked at."""
    rows = pq.read_table(out / "pairs.parquet", columns=["prompt_id", "prompt", "split"]).to_pylist()
    _, keys = sketched(pa.array([row["prompt"] for row in rows], MESSAGES))
    grams = [{*itertools.pairwise(row["prompt"][0]["content"].split())} for row in rows]
    held, trained = ([at for at, row in enumerate(rows) if row["split"] == side] for side in ("held_out", "train"))
    return sorted(
        rows[one]["prompt_id"]
        for one in held
        if any(
            2 * len(grams[one] & grams[other]) >= len(grams[one] | grams[other])
            and (keys[:, one] == keys[:, other]).any()
            for other in trained
        )
    )


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Sixteen hundred prompts in four drops; builds change none of them."""
    return drops_of(World(tmp_path_factory.mktemp("crowd")), template_prompts(1_600))


def test_no_prompt_held_out_has_a_near_copy_in_training(world, crowd, monkeypatch):
    """Without the search six have one, and the check counts just these: so there is something to find."""
    out, outcome = world.build(*crowd, settings=SETTINGS)
    assert near_leaks(out, jaccard=0.5) == []
    assert leaks_by_comparing_all(out) == []
    splits = pq.read_table(out / "splits.parquet").to_pylist()
    apart = {row["prompt_id"]: row["split"] for row in splits if row["is_apart"]}
    assert set(apart.values()) == {"quarantined"}
    assert 1 <= outcome.counts["prompts_set_apart"] == len(apart) <= 20
    excluded = {row["prompt_id"]: row["reason"] for row in pq.read_table(out / "excluded_pairs.parquet").to_pylist()}
    assert {excluded[prompt] for prompt in apart} == {"split_conflict"}

    monkeypatch.setattr(Crowd, "near", lambda _, asked, __: np.zeros(len(asked), bool))
    blind, _ = world.build(*crowd, settings=SETTINGS)
    leaks = leaks_by_comparing_all(blind)
    assert len(leaks) >= 5
    assert sorted(held for _, held, _ in near_leaks(blind, jaccard=0.5)) == leaks
    stood = {row["prompt_id"]: row["split"] for row in pq.read_table(blind / "splits.parquet").to_pylist()}
    first = min(row["first_drop"] for row in splits if row["is_apart"])
    for row in splits:
        if row["first_drop"] <= first and not row["is_apart"]:
            assert row["split"] == stood[row["prompt_id"]]


def test_drops_built_one_by_one_search_only_their_own_prompts_and_give_the_same_bytes(world, crowd):
    known, asked, near = [], [], Crowd.near

    def watched(self, some, others):
        asked.append(len(some))
        return near(self, some, others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crowd, "near", watched)
        for last in range(1, DROPS + 1):
            asked.clear()
            step, _ = world.build(*crowd[:last], settings=SETTINGS, known=known)
            assert 0 < sum(asked) <= 400
            known = [step]
        asked.clear()
        again, outcome = world.build(*crowd, settings=SETTINGS, known=known)
        assert (sum(asked), outcome.remarks["prompts_searched_in_crowds"]) == (0, 0)
    at_once, _ = world.build(*crowd, settings=SETTINGS)
    for path in at_once.iterdir():
        assert (step / path.name).read_bytes() == path.read_bytes(), path.name
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("changed", [{"held_out_share": 0.4}, {"prompt_cluster_jaccard": 0.45}])
def test_what_was_set_apart_under_other_settings_is_not_taken_over(world, crowd, changed):
    other = SETTINGS.model_copy(update=changed)
    earlier, _ = world.build(*crowd, settings=SETTINGS)
    fresh, resumed = (world.build(*crowd, settings=other, known=known)[0] for known in ([], [earlier]))
    assert near_leaks(fresh, jaccard=other.prompt_cluster_jaccard) == []
    assert (resumed / "splits.parquet").read_bytes() == (fresh / "splits.parquet").read_bytes()
    assert (earlier / "splits.parquet").read_bytes() != (fresh / "splits.parquet").read_bytes()


def test_whatever_was_decided_for_a_prompt_stays(world, crowd):
    stood = {}
    for last in range(1, DROPS + 1):
        out, _ = world.build(*crowd[:last], settings=SETTINGS)
        sides = {row["prompt_id"]: row["split"] for row in pq.read_table(out / "splits.parquet").to_pylist()}
        assert stood.items() <= sides.items()
        stood = sides


def test_where_a_part_of_an_earlier_drop_was_taken_back_nothing_leaks_and_nothing_is_taken_over(world, monkeypatch):
    monkeypatch.setattr(deduplicate, "EARLY_PROMPTS", 8)
    rows = [judgment(text, f"First answer {at}.", f"Second, {at}.") for at, text in enumerate(template_prompts(400))]
    may, less, june = world.drop("may", rows[:200]), world.drop("may", rows[:200:2]), world.drop("june", rows[200:])
    whole, outcome = world.build(may, june, settings=SETTINGS)
    assert outcome.counts["prompts_set_apart"] > 0
    resumed, _ = world.build(less, june, settings=SETTINGS, known=[whole])
    fresh, _ = world.build(less, june, settings=SETTINGS)
    assert leaks_by_comparing_all(resumed) == near_leaks(resumed, jaccard=0.5) == []
    assert (resumed / "splits.parquet").read_bytes() == (fresh / "splits.parquet").read_bytes()


def test_the_order_of_rows_does_not_matter(world, monkeypatch):
    monkeypatch.setattr(deduplicate, "EARLY_PROMPTS", 8)
    prompts = template_prompts(400)
    rows = [judgment(prompt, f"First answer {at}.", f"Second one, {at}.") for at, prompt in enumerate(prompts)]
    tables = []
    for step in (1, -1):
        drops = [world.drop(name, some[::step]) for name, some in (("may", rows[:200]), ("june", rows[200:]))]
        out, outcome = world.build(*drops, settings=SETTINGS)
        assert outcome.counts["prompts_set_apart"] > 0
        tables.append((out / "splits.parquet").read_bytes())
    assert tables[0] == tables[1]


KEYS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), max_size=30)


@given(KEYS, st.integers(1, 6), st.integers(0, 3), st.data())
def test_law_of_the_crowd(keys, most, since, data):
    """In it is who shares a key with more than `most` less one others, one of them new; near copies are found by a key
    of which that is so, and by no other."""
    count = len(keys)
    drops = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), np.int16)
    # Keys that differ in their lower bits only and keys far apart; 0 is that of a text without words.
    bands = np.array([[0, 1, 2, 1 << 20][key] for row in keys for key in row], np.uint32).reshape(count, 2).T
    value = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    sets = Shingles(np.array(value, np.uint32), np.arange(count + 1))

    def shingles_of(rows):
        return Shingles(sets.values[rows], np.arange(len(rows) + 1))

    catalogue = SimpleNamespace(
        prompts=SimpleNamespace(ids=np.zeros((count, 2)), place=SimpleNamespace(drop=drops)),
        shingles_of_prompts=shingles_of,
        scratch=Scratch(None),
    )
    crowd = Crowd(catalogue, most=most, since=since, similarity=0.5)
    assert [keys.tolist() for keys in crowd.gathering(iter(bands))] == bands.tolist()

    def crowded(row, band):
        members = np.flatnonzero(bands[band] == bands[band, row])
        return bands[band, row] != 0 and len(members) > most and (drops[members] >= since).any()

    expected = [row for row in range(count) if any(crowded(row, band) for band in range(2))]
    assert crowd.prompts.tolist() == expected
    asked = np.array(data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected))), bool)
    mine, theirs = np.flatnonzero(asked), np.flatnonzero(~asked)
    assert crowd.near(mine, theirs).tolist() == [
        any(
            bands[band, expected[one]] == bands[band, expected[other]]
            and crowded(expected[one], band)
            and value[expected[one]] == value[expected[other]]
            for other in theirs
            for band in range(2)
        )
        for one in mine
    ]
