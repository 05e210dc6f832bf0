"""Law: whatever earlier builds lie about, of other drops, versions, orders and settings, they change no byte."""

import random

import pytest
from preference_worlds import World, judgment

from dpo_pipeline.preferences import deduplicate, near_duplicates
from dpo_pipeline.preferences.settings import PreferenceSettings

WORDS = [f"word{number}" for number in range(30)]
STRICT = PreferenceSettings(consensus="majority", held_out_share=0.4)
LOOSE = STRICT.model_copy(update={"near_duplicate_jaccard": 0.6, "prompt_cluster_jaccard": 0.3})
STEPS = ("arrives", "arrives", "arrives", "is replaced", "loses somebody", "order changes", "is gone")


def rows(chance, base):
    """Up to fifteen judgments on edits of a few texts: crowded buckets, near copies, bridges."""

    def text():
        words = list(chance.choice(base))
        for _ in range(chance.randint(0, 4)):
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        return " ".join(words)

    some = [
        judgment(text(), text(), text(), chance.choice("ab"), chance.choice(["ann", "bob", None]))
        for _ in range(chance.randint(1, 15))
    ]
    return list({row["judgment_id"]: row for row in some}.values())


def change(chance, step, drops, base):
    """What happens to the drops, given by name in their order: the new ones."""
    names = list(drops)
    if step == "arrives" or len(names) < 2:
        known = [row for name in names[-1:] for row in drops[name][:2]]
        return {**drops, f"drop-{len(names)}-{chance.random()}": rows(chance, base) + known}
    name = chance.choice(names)
    if step == "is replaced":
        return {**drops, name: rows(chance, base)}
    if step == "loses somebody":
        return {each: [row for row in some if row["annotator"] != "ann"] for each, some in drops.items()}
    if step == "is gone":
        return {each: drops[each] for each in names if each != name}
    return {each: drops[each] for each in chance.sample(names, len(names))}


@pytest.mark.parametrize("seed", range(4))
def test_earlier_builds_change_no_byte_whatever_happened_to_the_drops_since(tmp_path, monkeypatch, seed):
    chance, world = random.Random(seed), World(tmp_path)
    monkeypatch.setattr(near_duplicates, "WINDOW", chance.choice([1, 2, 8]))
    monkeypatch.setattr(deduplicate, "EARLY_PROMPTS", chance.choice([1, 3, 64]))
    monkeypatch.setattr(near_duplicates, "ROWS_PER_PIECE", 5)
    base = [[chance.choice(WORDS) for _ in range(14)] for _ in range(3)]
    drops, earlier, reused = {}, [], 0
    for step in chance.sample(STEPS, len(STEPS)):
        drops = change(chance, step, drops, base)
        tables = [world.drop(name, some) for name, some in drops.items()]
        settings = chance.choice([STRICT, LOOSE])
        fresh, _ = world.build(*tables, settings=settings)
        resumed, outcome = world.build(*tables, settings=settings, known=chance.sample(earlier, len(earlier)))
        assert sorted(path.name for path in resumed.iterdir()) == sorted(path.name for path in fresh.iterdir())
        for path in fresh.iterdir():
            assert (resumed / path.name).read_bytes() == path.read_bytes(), (step, path.name)
        earlier.append(resumed)
        reused += outcome.remarks["likenesses_reused"]
    assert reused > 0
