"""The index of prompts that others must not be like: nothing near is overlooked in a crowd."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences import prompt_index
from dpo_pipeline.preferences.prompt_index import PromptIndex, sketched

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
@given(index=TEXTS, texts=TEXTS, similarity=st.sampled_from([0.3, 0.5, 0.8]), at_once=st.sampled_from([1, 3, 1 << 16]))
def test_law_of_the_index(index, texts, similarity, at_once):
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
        assert PromptIndex(asked(index), similarity=similarity).near(asked(texts)).tolist() == expected
