"""The index of prompts that others must not be like: nothing near is overlooked in a crowd."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences import prompt_index
from dpo_pipeline.preferences.all_pairs import near_copies_in
from dpo_pipeline.preferences.prompt_index import PromptIndex, find_across, sketched
from dpo_pipeline.preferences.spill import Scratch

WORDS = [f"word{number}" for number in range(40)]


def asked(texts):
    return pa.array([[{"role": "user", "content": " ".join(words)}] for words in texts], MESSAGES)


def edited(words, *places, by="other"):
    return [f"{by}{place}" if place in places else word for place, word in enumerate(words)]


@pytest.mark.parametrize("at_once", [1 << 16, 7])
def test_a_copy_is_found_behind_any_number_of_less_alike_prompts(monkeypatch, at_once):
    """Planted: 200 prompts of similarity 35 / 43 stand before the one of 38 / 40 wherever that shares a key.

    Two words replaced within the text take four of its 39 bigrams, the last word takes one.
    """
    monkeypatch.setattr(prompt_index, "CANDIDATES_AT_ONCE", at_once)
    chance = np.random.default_rng(5)
    crowd = [
        edited(WORDS, *(int(place) for place in chance.choice([2, 5, 9, 14, 20, 26, 31, 36], 2, replace=False)), by=by)
        for by in (f"crowd{number}" for number in range(200))
    ]
    copy = edited(WORDS, 39)
    _, keys = sketched(asked([WORDS, copy, *crowd]))
    shared = [(keys[band, 2:] == keys[band, 0]).sum() for band in np.flatnonzero(keys[:, 0] == keys[:, 1])]
    assert min(shared) > 16, "wherever the copy could be found there is a crowd before it"
    others = [["nothing", "of", "the", "kind"], edited(WORDS, *range(0, 40, 2))]
    assert PromptIndex(asked([*crowd, copy]), similarity=0.9).near(asked([WORDS, *others])).tolist() == [
        True,
        False,
        False,
    ]
    assert not PromptIndex(asked(crowd), similarity=0.9).near(asked([WORDS])).any()


TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=7), min_size=1, max_size=30)


@settings(max_examples=40)
@given(
    index=TEXTS,
    texts=TEXTS,
    similarity=st.sampled_from([0.3, 0.5, 0.8]),
    at_once=st.sampled_from([1, 3, 1 << 16]),
    crowd=st.sampled_from([1, 20, 1 << 30]),
)
def test_law_of_the_index(index, texts, similarity, at_once, crowd):
    """A prompt is found exactly if it shares a band's key with one that it is alike enough to: every pair looked at."""
    (_, one), (_, other) = sketched(asked(index)), sketched(asked(texts))

    def grams(words):
        return {*itertools.pairwise(words)} or {*words}

    expected = [
        any(
            ((other[:, place] == one[:, number]) & (one[:, number] != 0)).any()
            and len(grams(mine) & grams(theirs)) >= similarity * len(grams(mine) | grams(theirs))
            for number, theirs in enumerate(index)
        )
        for place, mine in enumerate(texts)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_index, "CANDIDATES_AT_ONCE", at_once)
        patch.setattr(prompt_index, "PAIRS_OF_A_CROWD", crowd)
        assert PromptIndex(asked(index), similarity=similarity).near(asked(texts)).tolist() == expected


def template_texts(count, words, varied):
    """Texts that share most of their words with one template; similarity spreads around one half."""
    chance = np.random.default_rng(5)
    template = chance.integers(0, 400, words)
    texts = np.tile(template, (count, 1))
    for text in texts:
        text[chance.choice(words, varied, replace=False)] = chance.integers(0, 400, varied)
    return [[f"word{word}" for word in text] for text in texts]


@pytest.mark.parametrize(("words", "varied"), [(24, 4), (40, 7), (130, 14)])
def test_a_crowd_compared_at_once_is_found_what_is_found_pair_by_pair(monkeypatch, words, varied):
    texts, answers = template_texts(600, words, varied), []
    index = PromptIndex(asked(texts[:500]), similarity=0.5)
    crowds = []
    monkeypatch.setattr(prompt_index, "near_copies_in", lambda *some: crowds.append(some) or near_copies_in(*some))
    for least in (100, 1 << 30):
        monkeypatch.setattr(prompt_index, "PAIRS_OF_A_CROWD", least)
        answers.append(index.near(asked(texts[500:])).tolist())
        crowds.append(None)
    at_once, *_ = crowds
    assert at_once is not None
    assert crowds[-2:] == [None, None], "pair by pair is the oracle: there nothing is compared at once"
    assert answers[0] == answers[1]
    assert any(answers[0])


class Counted:
    def __init__(self):
        self.count = 0

    def add(self, count):
        self.count += count


@pytest.mark.parametrize("crowd", [1, 1 << 30])
def test_progress_counts_every_key_once(monkeypatch, crowd):
    monkeypatch.setattr(prompt_index, "PAIRS_OF_A_CROWD", crowd)
    sets, keys = sketched(asked(template_texts(90, 24, 4)))
    progress = Counted()
    mine, theirs = np.arange(0, 30), np.arange(30, 90)
    find_across(keys, sets, mine, theirs, similarity=0.5, scratch=Scratch(None), progress=progress)
    assert progress.count == len(mine) * len(keys)


def test_many_crowds_cost_no_pass_over_all_rows_each(monkeypatch):
    """Forty keys of three prompts on each side, none alike: what is passed over stays within twice the rows."""
    monkeypatch.setattr(prompt_index, "PAIRS_OF_A_CROWD", 9)
    sets, _ = sketched(
        asked([[f"{side}{number}", "says", f"{number}{side}"] for side in "ab" for number in range(120)])
    )
    crowds, passed = [], []
    monkeypatch.setattr(prompt_index, "near_copies_in", lambda *some: crowds.append(some) or near_copies_in(*some))
    setdiff1d = np.setdiff1d
    monkeypatch.setattr(
        np, "setdiff1d", lambda one, *more, **how: passed.append(len(one)) or setdiff1d(one, *more, **how)
    )
    keys = np.tile(np.repeat(np.arange(1, 41, dtype=np.uint32), 3), 2)
    mine, theirs = np.arange(120), np.arange(120, 240)
    found = find_across([keys], sets, mine, theirs, similarity=0.9, scratch=Scratch(None))
    assert (len(crowds), found.max()) == (40, -1)
    assert sum(passed) <= 2 * len(mine)


@pytest.mark.parametrize("least", [1, 1 << 30])
def test_a_key_that_nobody_has_is_not_taken_for_the_next_one(monkeypatch, least):
    """The same prompt on both sides, but under keys 1 and 2: nothing is compared."""
    monkeypatch.setattr(prompt_index, "PAIRS_OF_A_CROWD", least)
    sets, _ = sketched(asked([WORDS, ["another", "thing"], WORDS]))
    keys = np.array([1, 2, 2], np.uint32)
    found = find_across([keys], sets, np.array([1, 0]), np.array([2]), similarity=0.5, scratch=Scratch(None))
    assert found.tolist() == [-1, -1]
