"""Which prompts held out today an SFT checkpoint learned: the same that reading its demonstrations again trains on."""

import itertools
import random

import pyarrow.parquet as pq
import pytest
from worlds import write_demonstrations, write_pairs

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences.personal_data import says_redacted
from dpo_pipeline.sft.demonstrations import read_demonstrations
from dpo_pipeline.sft.learned import Lesson, held_out_learned, lesson_of
from dpo_pipeline.sft.settings import SftSettings

THINGS = ("lamp", "chair", "kettle", "router", "desk", "tent")
PLACES = ("the kitchen", "my garden", "an office", "the hall")
WORDS = "I bought a {} for {} last week and now it does not work any more so please tell me what I should do about it"
PROMPTS = [WORDS.format(thing, place) for thing, place in itertools.product(THINGS, PLACES)]


def turns(words):
    return [{"role": "user", "content": words}]


def bigrams(words):
    said = words.lower().split()
    return set(itertools.pairwise(said))


def alike(one, other):
    """Jaccard similarity of word pairs, by hand."""
    return len(bigrams(one) & bigrams(other)) / len(bigrams(one) | bigrams(other))


@pytest.mark.parametrize("choice", range(8))
def test_a_prompt_counts_exactly_if_sft_on_that_lesson_trains_on_it_or_on_a_near_copy(tmp_path, choice):
    """Law of `held_out_learned`, the reading of demonstrations and brute force as oracles."""
    chance = random.Random(choice)
    permitted, overridden, chosen = chance.random() < 0.5, chance.random() < 0.5, chance.random() < 0.7
    settings = SftSettings(
        chosen_as_demonstrations=chosen,
        override_sft_permission=overridden,
        held_out_share=chance.choice((0.0, 0.4)),
        held_out_similarity=chance.choice((0.7, 0.95)),
    )
    then = write_pairs(
        tmp_path / "then",
        [(turns(words), "yes", "no") for words in chance.sample(PROMPTS, 8)],
        held_out_every=4,
        sft_allowed=permitted,
    )
    drops = [
        write_demonstrations(
            tmp_path / name, [[*turns(words), {"role": "assistant", "content": "ok"}] for words in said]
        )
        for name, said in (("a", chance.sample(PROMPTS, 5)), ("b", chance.sample(PROMPTS, 3)))
    ]
    held_out = chance.sample(PROMPTS, 9)
    today = write_pairs(tmp_path / "today", [(turns(words), "yes", "no") for words in held_out], held_out_every=1)
    ids = dict(zip(held_out, ids_of(today), strict=True))

    trained = {
        messages[0]["content"] for messages in read_demonstrations(drops, then, settings=settings, seed=choice).train
    }
    same = {ids[words] for words in trained & set(held_out)}
    nearly = {ids[words] for words in held_out if any(alike(words, other) >= 0.7 for other in trained)} - same
    found = held_out_learned(Lesson(tuple(drops), then, settings, choice), today, similarity=0.7)
    assert found == (same, nearly)


def test_what_was_redacted_then_was_kept_aside_by_its_redacted_words(tmp_path):
    """The same law where rules take addresses out of what is learned."""
    settings = SftSettings(held_out_share=0.5, held_out_similarity=1)
    asked = [f"{words}, {who}@shop.example" for words in PROMPTS for who in ("ann", "bob")]
    talks = [[*turns(words), {"role": "assistant", "content": "ok"}] for words in asked]
    drop = write_demonstrations(tmp_path / "drop", talks)
    then = write_pairs(tmp_path / "then", [(turns("something else"), "yes", "no")])
    table = pq.read_table(then / "pairs.parquet")
    said = says_redacted(frozenset({"email"}))
    write_table(then / "pairs.parquet", table.replace_schema_metadata({**(table.schema.metadata or {}), **said}))
    today = write_pairs(tmp_path / "today", [(turns(words), "yes", "no") for words in asked], held_out_every=1)
    ids = dict(zip(asked, ids_of(today), strict=True))

    learned = read_demonstrations([drop], then, settings=settings, seed=1).train
    trained = {messages[0]["content"] for messages in learned}
    assert 0 < len(trained) < len(PROMPTS)
    same = {ids[words] for words in asked if f"{words.rpartition(' ')[0]} [EMAIL]" in trained}
    assert held_out_learned(Lesson((drop,), then, settings, 1), today, similarity=1).same == same


def ids_of(pairs):
    return pq.read_table(pairs / "pairs.parquet", columns=["prompt_id"])["prompt_id"].to_pylist()


def test_what_was_kept_aside_or_left_out_then_was_not_learned(tmp_path):
    asked = PROMPTS[0]
    drop = write_demonstrations(tmp_path / "drop", [[*turns(asked), {"role": "assistant", "content": "ok"}]])
    other = write_pairs(tmp_path / "other", [(turns(PROMPTS[-1]), "yes", "no")])
    today = write_pairs(tmp_path / "today", [(turns(asked), "yes", "no")], held_out_every=1)

    def learned(pairs, share):
        lesson = Lesson((drop,), pairs, SftSettings(held_out_share=share, held_out_similarity=1), 1)
        return held_out_learned(lesson, today, similarity=0.9)

    assert learned(other, 0.0) == (set(ids_of(today)), set())
    assert learned(other, 0.999_999) == (set(), set())
    assert learned(today, 0.0) == (set(), set())


def test_of_a_checkpoint_whose_tables_are_gone_nobody_can_tell(home):
    def made(kind, *parents, settings=None):
        with home.store.staging() as folder:
            (folder / "file.txt").write_text(kind)
            return home.store.publish(folder, Recipe(kind, "1", settings or {}, parents), Outcome())

    drop, pairs = made("demonstrations"), made("preference_pairs")
    shape = {"sft": {"held_out_share": 0.25, "of_an_older_version": 1}, "model": {"seed": 7}}
    parents = (Parent("demonstrations/may", drop.kind, drop.digest), Parent(pairs.kind, pairs.kind, pairs.digest))
    checkpoint = made("sft_checkpoint", *parents, settings=shape)
    assert lesson_of(home.store, checkpoint) == Lesson((drop.path,), pairs.path, SftSettings(held_out_share=0.25), 7)
    (drop.path / "file.txt").unlink()
    (drop.path / "manifest.json").unlink()
    drop.path.rmdir()
    assert lesson_of(home.store, checkpoint) is None
