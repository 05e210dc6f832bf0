"""Demonstrations in the ledger of splits: what an earlier drop may have taught is held out by no later one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_worlds import World, judgment, tiny

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.evaluation.leaks import Training, nothing_leaked
from dpo_pipeline.preferences import taught as taught_module
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.pinned import GoldenSet
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, TRAIN, draws_of, split_prompts
from dpo_pipeline.preferences.under_keys import UnderKeys
from dpo_pipeline.sft.held_out import HeldOutPrompts
from dpo_pipeline.sft.learned import Lesson
from dpo_pipeline.sft.settings import SftSettings

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


def words(name, count):
    return " ".join(f"{name}{number}" for number in range(count))


def id_of(text):
    return to_hex(prompt_keys(pa.array([[{"role": "user", "content": text}]], MESSAGES)))[0].as_py()


def test_a_near_copy_of_a_quarantined_bridge_is_not_learned(world):
    """Left and right share a third of their word pairs, so each draws alone; the bridge shares 15 of 23 with either.

    What is demonstrated shares 23 of 35 with the bridge and 15 of 35 with left and right: the bridge alone keeps it
    out. It is not in the table of pairs, whatever became of its sides.
    """
    left, right, bridge, said = ({} for _ in range(4))
    for subject in SUBJECTS:
        start, middle, end = (words(f"{subject}{part}", 8) for part in "pqr")
        left[subject], right[subject] = f"{start} {middle}", f"{middle} {end}"
        bridge[subject] = f"{start} {middle} {end}"
        said[subject] = f"{bridge[subject]} {words(f'{subject}s', 12)}"
    may = world.drop("may", pairs_on([*left.values(), *right.values()]))
    june = world.drop("june", pairs_on(bridge.values()), taught=said.values())
    out, _ = world.build(may, june, settings=SETTINGS)
    sides = {name: row["split"] for name, row in table(out, "splits.parquet").items()}
    of_bridge = {subject: sides[id_of(text)] for subject, text in bridge.items()}
    for subject, side in of_bridge.items():
        both = {sides[id_of(left[subject])], sides[id_of(right[subject])]}
        assert side == (both.pop() if len(both) == 1 else "quarantined")
    assert set(of_bridge.values()) == {"train", "held_out", "quarantined"}
    kept_out = table(out, "demonstrated_prompts.parquet")
    _, reasons = HeldOutPrompts(out, similarity=0.5).reasons(
        [[{"role": "user", "content": text}] for text in said.values()]
    )
    for (subject, side), reason in zip(of_bridge.items(), reasons, strict=True):
        assert kept_out[id_of(said[subject])]["is_kept_out"] == (side != "train")
        assert reason == (None if side == "train" else "prompt_near_held_out")


def test_a_demonstration_like_the_golden_set_is_kept_out_and_pins_nothing(world, tmp_path):
    """Golden lamp and tent: demonstrated in May and asked in June they are held out, the other four are trained on."""
    path = tmp_path / "golden.jsonl"
    items = [{"prompt": asked(subject), "chosen": "Yes.", "rejected": "No."} for subject in TAUGHT[:2]]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    pinned = GoldenSet(path=str(path), sha256=sha256_of_file(path), name="golden")
    may = world.drop("may", [], taught=map(nearly, TAUGHT))
    june = world.drop("june", pairs_on(map(nearly, TAUGHT)))
    plain, _ = world.build(may, june, settings=SETTINGS)
    golden = SETTINGS.model_copy(update={"golden_set": pinned})
    first, _ = world.build(may, settings=golden)
    at_once, outcome = world.build(may, june, settings=golden)
    step, _ = world.build(may, june, settings=golden, known=[first])
    assert held_out_texts(plain) == set()
    assert held_out_texts(at_once) == {nearly(subject) for subject in TAUGHT[:2]}
    kept_out = table(at_once, "demonstrated_prompts.parquet")
    assert {subject for subject in TAUGHT if kept_out[id_of(nearly(subject))]["is_kept_out"]} == {*TAUGHT[:2]}
    assert outcome.counts["demonstrated_prompts_kept_out"] == 2
    assert outcome.counts["prompts_like_demonstrations"] == 4
    for file in at_once.iterdir():
        assert (step / file.name).read_bytes() == file.read_bytes(), file.name


@settings(max_examples=5)
@given(said=st.permutations([*SUBJECTS[:8], "lamp", "tent"]))
def test_the_order_of_demonstrations_and_how_often_they_come_change_nothing(tmp_path_factory, said):
    """Sketch and tables keep their bytes, also where few rows are read at a time."""
    world = World(tmp_path_factory.mktemp("order"))

    def built(prompts):
        drops = [world.drop("may", pairs_on(map(nearly, SUBJECTS[:4])), taught=prompts)]
        drops.append(world.drop("june", pairs_on(map(asked, SUBJECTS))))
        out, outcome = world.build(*drops, settings=SETTINGS)
        assert 0 < outcome.counts["demonstrated_prompts_kept_out"] < outcome.counts["demonstrated_prompts"] == 8
        files = (drops[0].sketches / "taught_prompts.parquet", drops[0].sketches / "taught_shingles.bin")
        return {path.name: path.read_bytes() for path in [*files, *out.iterdir()]}

    plain = built(map(asked, SUBJECTS[:8]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taught_module, "ROWS_AT_ONCE", 3)
        assert built(map(asked, said)) == plain


@pytest.mark.parametrize(("rule", "favoured"), [("train", 0), ("draw", 1)])
def test_the_gate_finds_nothing_where_a_drop_asks_what_an_earlier_one_demonstrated(world, rule, favoured):
    """A champion learned May's demonstrations, a challenger what may be learned in June, when they came as pairs."""
    rules = SETTINGS.model_copy(update={"demonstrated_earlier": rule})
    may = world.drop("may", pairs_on(map(asked, FRESH[:3])), taught=map(asked, TAUGHT))
    june = world.drop("june", pairs_on([*map(nearly, TAUGHT[:3]), *map(asked, SUBJECTS[3:])]))
    first, _ = world.build(may, settings=rules)
    both, _ = world.build(may, june, settings=rules, known=[first])
    demonstrations = (next(world.folder.glob("*-demonstrations")),)
    lessons = {
        name: Lesson(demonstrations, pairs, SftSettings(held_out_share=0), 1)
        for name, pairs in {"champion": first, "challenger": both}.items()
    }
    training = Training({"champion": first, "challenger": both}, lessons)
    found = nothing_leaked(both, training, jaccard=0.5, allowed=0)
    assert found.numbers["held_out_prompts"] > 0
    assert found.held is True
    assert ("which favours it" in found.found) == bool(favoured)
    learned = {name: count for name, count in found.numbers.items() if "demonstrated to" in name}
    assert sum(count > 0 for name, count in learned.items() if name.endswith("challenger")) == 0
    assert (sum(learned.values()) > 0) == bool(favoured)


def three_drops(world):
    return [
        world.drop("may", pairs_on(map(asked, SUBJECTS[:4])), taught=map(nearly, SUBJECTS[2:8])),
        world.drop("june", pairs_on(map(asked, SUBJECTS[:9])), taught=map(asked, SUBJECTS[8:10])),
        world.drop("july", pairs_on([*map(nearly, SUBJECTS), *map(asked, SUBJECTS)])),
    ]


def test_drops_built_one_by_one_search_nothing_again_and_give_the_same_bytes(world, monkeypatch):
    drops, known, searched = three_drops(world), [], []
    near = UnderKeys.near
    monkeypatch.setattr(UnderKeys, "near", lambda self, one, other: searched.append(len(one)) or near(self, one, other))
    for last in (1, 2, 3):
        step, _ = world.build(*drops[:last], settings=SETTINGS, known=known)
        known = [step]
    assert any(searched)
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


def test_a_first_drop_may_bring_demonstrations_and_nothing_else(world):
    """There is no pair to hold anything against yet."""
    out, outcome = world.build(world.drop("may", [], taught=map(asked, TAUGHT)), settings=SETTINGS)
    demonstrated = table(out, "demonstrated_prompts.parquet")
    assert {(name, row["is_kept_out"]) for name, row in demonstrated.items()} == {
        (id_of(asked(subject)), False) for subject in TAUGHT
    }
    assert (outcome.counts["prompts"], outcome.counts["pairs"]) == (0, 0)


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
