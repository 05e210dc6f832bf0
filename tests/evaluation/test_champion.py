"""The gate to champion on planted challengers: better, worse, noise, few pairs, leaks, and a person's word."""

import dataclasses
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError, SettingsError
from dpo_pipeline.core.promotions import champion_digest, promote, promotions, roll_back
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.evaluation.champion import ByHand, Ruling, decide_champion, promotion_of
from dpo_pipeline.evaluation.examination import CONDITIONS, examine, examine_one
from dpo_pipeline.evaluation.gate import GUARDS
from dpo_pipeline.evaluation.leaks import training_of
from dpo_pipeline.evaluation.settings import ChampionSettings
from dpo_pipeline.evaluation.standing import standing_of
from dpo_pipeline.preferences.golden import GOLDEN_FILE, SOURCE
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.sft.settings import SftSettings

HAND = ByHand(promote=True, reason="The judges are wrong about the new tone.", person="Ada")


class Arena:
    """A home into which challengers of a planted skill come, one after the other, with real reports about them."""

    def __init__(self, home, make_world, fake_speaker, monkeypatch):
        self.home, self.make_world, self.fake_speaker, self.monkeypatch = home, make_world, fake_speaker, monkeypatch
        self.world, self.pairs, self.demonstrations, self.skills, self.reports, self.start = None, None, None, {}, 0, ()

    def publish(self, kind, source, *parents, settings=None):
        recipe = Recipe(kind, "1", settings or {}, parents)
        with self.home.store.staging() as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            artifact = self.home.store.publish(folder, recipe, Outcome())
        same = {"attempt": artifact.digest, "asset": kind, "partition": None, "recipe": recipe.digest}
        self.home.ledger.append("started", **same)
        self.home.ledger.append("finished", **same, artifact=artifact.digest)
        return artifact

    def begin_from(self, champion):
        """Later challengers are trained from an SFT checkpoint that began from this champion."""
        self.start = (Parent("champion", "dpo_checkpoint", champion),)

    def open(self, *, pair_count=120):
        self.world = self.make_world(pair_count=pair_count)
        self.pairs = self.publish("preference_pairs", self.world.root / "pairs")
        return self.teach([])

    def teach(self, prompts):
        """Later SFT checkpoints learn from a drop of demonstrations of these prompts, and from nothing else."""
        table = pq.read_table(self.world.root / "demonstrations" / "demonstrations.parquet")
        row = table.slice(0, 1).to_pylist()[0]
        said = {"role": "assistant", "content": "Of course."}
        rows = [{**row, "messages": [{"role": "user", "content": words}, said]} for words in prompts]
        folder = self.world.root / "taught"
        folder.mkdir(exist_ok=True)
        pq.write_table(table.from_pylist(rows, schema=table.schema), folder / "demonstrations.parquet")
        self.publish("judgments", folder)  # one reading gives both tables
        self.demonstrations = self.publish("demonstrations", folder)
        return self

    def fine_tune(self):
        """An SFT checkpoint on today's pairs and demonstrations."""
        return self.publish(
            "sft_checkpoint",
            self.world.root / "sft",
            Parent("demonstrations/a", "demonstrations", self.demonstrations.digest),
            Parent("preference_pairs", "preference_pairs", self.pairs.digest),
            *self.start,
            settings={"sft": SftSettings(held_out_share=0).model_dump(mode="json"), "model": {"seed": 1}},
        )

    def challenge(self, skill, *, weights=None, **speaker):
        """A new challenger of that skill and a report about it, today's champion being a fourth speaker."""
        (self.world.root / "dpo" / "model").mkdir(exist_ok=True)
        (self.world.root / "dpo" / "model" / "weights").write_text(weights or repr((skill, speaker)))
        behind = Parent("preference_pairs", "preference_pairs", self.pairs.digest)
        checkpoint = self.publish(
            "dpo_checkpoint",
            self.world.root / "dpo",
            behind,
            Parent("sft_checkpoint", "sft_checkpoint", self.fine_tune().digest),
            settings={"skill": skill, "speaker": repr(speaker)},
        )
        speakers = {
            "sft": self.fake_speaker("sft", skill=0.45),
            "dpo": self.fake_speaker(f"skill {skill}", skill=skill, **speaker),
        }
        parents = [Parent("dpo_checkpoint", "dpo_checkpoint", checkpoint.digest)]
        champion = champion_digest(self.home)
        if champion not in {None, checkpoint.digest}:
            speakers["champion"] = self.fake_speaker(f"skill {self.skills[champion]}", skill=self.skills[champion])
            parents.append(Parent("champion", "dpo_checkpoint", champion))
        self.skills[checkpoint.digest] = skill
        self.reports += 1
        self.world.evaluate(speakers, self.monkeypatch, out=f"out {self.reports}")
        self.publish("evaluation_report", self.world.root / f"out {self.reports}", behind, *parents)
        return standing_of(self.home)

    def decide(self, standing, by_hand=None, *, promotion="auto", conditions=None, **changes):
        """The gate's decision as the artifact that holds it."""
        settings = ChampionSettings(promotion=promotion, **changes)
        if conditions is None:
            conditions = examine(self.home, standing, settings=settings, jaccard=0.95)
        word = by_hand or ByHand()
        with self.home.store.staging() as folder:
            outcome = decide_champion(standing, conditions, folder, settings=settings, by_hand=word)
            inputs = {"by_hand": word.model_dump(mode="json"), "withdrawn": standing.withdrawn}
            report = Parent("evaluation_report", "evaluation_report", standing.report.digest)
            return self.home.store.publish(folder, Recipe("champion", "1", inputs, (report,)), outcome)

    def promote(self, decision):
        promotion = promotion_of(decision)
        return None if promotion is None else promote(self.home, promotion)


@pytest.fixture
def arena(home, make_world, fake_speaker, monkeypatch):
    return Arena(home, make_world, fake_speaker, monkeypatch)


def ruling(decision):
    return Ruling(json.loads((decision.path / "decision.json").read_text())["ruling"])


def test_the_first_model_is_promoted_against_sft_the_next_against_the_champion(arena):
    arena.open()
    first = arena.challenge(0.8)
    decision = arena.decide(first)
    assert ruling(decision) is Ruling.PROMOTED
    assert decision.facts["champion_before"] == "none"
    arena.promote(decision)
    assert champion_digest(arena.home) == first.challenger
    second = arena.challenge(0.99)
    decision = arena.decide(second)
    assert ruling(decision) is Ruling.PROMOTED
    assert decision.facts["champion_before"] == first.challenger
    assert arena.promote(decision).before == first.challenger
    page = (decision.path / "decision.md").read_text()
    assert page.startswith("## Promoted\n")
    assert "compared with today's champion" in page


@pytest.mark.parametrize(
    ("skill", "speaker", "expected"),
    [
        (0.1, {}, Ruling.NOT_BETTER),  # worse than SFT's 0.45
        (0.46, {}, Ruling.NOT_ENOUGH_EVIDENCE),  # noise around SFT
        (0.99, {"log_prob": float("nan")}, Ruling.BLOCKED),  # writes well and has broken weights
    ],
)
def test_a_worse_a_noisy_and_a_broken_challenger_are_not_promoted(arena, skill, speaker, expected):
    decision = arena.decide(arena.open().challenge(skill, **speaker))
    assert ruling(decision) is expected
    assert arena.promote(decision) is None
    assert promotions(arena.home) == []


def test_few_pairs_are_never_enough_however_good_the_challenger(arena):
    decision = arena.decide(arena.open(pair_count=20).challenge(1.0))
    assert ruling(decision) is Ruling.NOT_ENOUGH_EVIDENCE
    assert "the rule asks for at least 30" in decision.facts["reason"]


def test_a_challenger_as_good_as_the_champion_does_not_take_its_place(arena):
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.9)))
    champion = champion_digest(arena.home)
    assert ruling(arena.decide(arena.challenge(0.91))) is Ruling.NOT_ENOUGH_EVIDENCE
    assert ruling(arena.decide(arena.challenge(0.5))) is Ruling.NOT_BETTER
    assert champion_digest(arena.home) == champion


def test_a_report_that_does_not_show_todays_champion_is_refused(arena):
    arena.open()
    late = arena.challenge(0.95)
    arena.promote(arena.decide(arena.challenge(0.8)))
    late = standing_of(arena.home, late.report)
    with pytest.raises(ArtifactError, match="compares with no champion; today's champion is"):
        arena.decide(late)


def test_under_manual_promotion_a_better_model_waits_for_a_reason_and_is_then_promoted(arena):
    standing = arena.open().challenge(0.95)
    waiting = arena.decide(standing, promotion="manual")
    assert ruling(waiting) is Ruling.WAITS
    assert arena.promote(waiting) is None
    with pytest.raises(InputError) as error:
        arena.decide(standing, ByHand(promote=True, reason=" "), promotion="manual")
    assert str(error.value) == (
        "a promotion by hand was asked for without a reason. Expected: a sentence that a reader of the ledger will "
        "understand in a year. Fill in `reason` in the run's config, or give --reason on the command line."
    )
    change = arena.promote(arena.decide(standing, HAND, promotion="manual"))
    assert (change.champion, change.person, change.reason) == (standing.challenger, "Ada", HAND.reason)
    assert change.verdict["outcome"] == "better"


def test_a_person_may_overrule_the_rule_and_the_ledger_keeps_both(arena):
    change = arena.promote(arena.decide(arena.open().challenge(0.46), HAND))
    assert change.mode.value == "manual"
    assert change.verdict["outcome"] == "not_enough_evidence"


def test_a_person_may_not_overrule_a_broken_check(arena):
    standing = arena.open().challenge(0.95)
    with pq.ParquetFile(standing.report.path / "scores.parquet") as file:
        table = file.read()
    pq.write_table(table.slice(1), standing.report.path / "scores.parquet")
    decision = arena.decide(standing, HAND)
    assert ruling(decision) is Ruling.BLOCKED
    assert arena.promote(decision) is None


def test_a_rolled_back_model_is_promoted_again_only_by_a_person(arena):
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.8)))
    good = arena.challenge(0.99)
    arena.promote(arena.decide(good))
    first = roll_back(arena.home, reason="it invents order numbers", person="Ada").champion
    again = arena.decide(standing_of(arena.home, good.report))
    assert ruling(again) is Ruling.ROLLED_BACK_BEFORE
    assert "It invents order numbers." in again.facts["reason"]
    assert champion_digest(arena.home) == first
    arena.promote(arena.decide(standing_of(arena.home, good.report), HAND))
    assert champion_digest(arena.home) == good.challenger


def test_the_champion_itself_is_no_challenger(arena):
    standing = arena.open().challenge(0.9)
    arena.promote(arena.decide(standing))
    decision = arena.decide(standing_of(arena.home))
    assert ruling(decision) is Ruling.IS_CHAMPION
    assert arena.promote(decision) is None


def test_the_champions_weights_trained_again_from_other_pairs_are_no_challenger(arena):
    first = arena.open().challenge(0.9, weights="the same")
    arena.promote(arena.decide(first))
    again = arena.challenge(0.91, weights="the same")
    assert again.challenger != first.challenger
    decision = arena.decide(again)
    assert ruling(decision) is Ruling.IS_CHAMPION
    assert "has the very weights of today's champion" in decision.facts["reason"]
    assert champion_digest(arena.home) == first.challenger


def examined(arena, standing, name, *, jaccard=0.95, **settings):
    return examine_one(name, arena.home, standing, settings=ChampionSettings(**settings), jaccard=jaccard)


def test_every_condition_holds_on_a_sound_report(arena):
    standing = arena.open().challenge(0.9)
    assert {name: examined(arena, standing, name).held for name in CONDITIONS} == dict.fromkeys(CONDITIONS, True)


def rewrite_pairs(arena, change):
    """A new preference_pairs whose rows are changed, and a challenger on it."""
    path = arena.world.root / "pairs" / "pairs.parquet"
    table = pq.read_table(path)
    pq.write_table(table.from_pylist(change(table.to_pylist()), schema=table.schema), path)
    arena.pairs = arena.publish("preference_pairs", arena.world.root / "pairs")
    return arena.challenge(0.9)


def test_a_held_out_prompt_that_the_champion_was_trained_on_is_a_leak(arena):
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.8)))

    # With another salt, what the champion learned from is held out.
    found = examined(arena, rewrite_pairs(arena, hold_out_what_was_trained), "nothing_leaked")
    assert found.held is False
    assert "champion was trained on 1 held-out prompts" in found.found


def hold_out_what_was_trained(rows):
    train = next(row for row in rows if row["split"] == "train")
    return [{**row, "split": "held_out"} if row["prompt_id"] == train["prompt_id"] else row for row in rows]


def test_what_the_champions_before_a_warm_start_learned_from_counts_as_trained_on(arena):
    """The challenger begins from a champion that began from another, which learned what is held out now."""
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.6)))
    first = champion_digest(arena.home)
    arena.begin_from(first)
    rewrite_pairs(arena, hold_out_what_was_trained)
    second = arena.home.latest("dpo_checkpoint").digest
    arena.begin_from(second)
    standing = arena.challenge(0.9)
    standing = dataclasses.replace(standing, champion=None)
    assert list(training_of(arena.home, standing).pairs) == [
        "challenger",
        f"challenger, begun from {second[:12]},",
        f"challenger, begun from {first[:12]},",
    ]
    found = examined(arena, standing, "nothing_leaked")
    assert found.held is False
    assert found.found.startswith(f"challenger, begun from {first[:12]}, was trained on 1 held-out prompts")
    assert found.advice.startswith("Train from the base model (operation.start_from: base)")
    shutil.rmtree(arena.home.store.path_of("dpo_checkpoint", first))
    assert examined(arena, standing, "nothing_leaked").held is None


def hold_out(rows, words):
    """Everything of one prompt among the trained rows is held out instead, and asks these words."""
    train = next(row for row in rows if row["split"] == "train")
    asked = {"split": "held_out", "prompt": [{"role": "user", "content": words}]}
    return [*rows, {**train, **asked, **dict.fromkeys(("pair_id", "cluster_id"), "c" * 32), "prompt_id": id_of(words)}]


def id_of(words):
    return to_hex(prompt_keys(pa.array([[{"role": "user", "content": words}]], MESSAGES))).to_pylist()[0]


TAUGHT = "Which of your tents is the lightest, and how long does it take one person to put it up in the rain at night?"
TESTS = {"the same": TAUGHT, "nearly": TAUGHT.replace("lightest", "heaviest")}


@pytest.mark.parametrize("asked", TESTS)
def test_what_a_champion_was_taught_before_it_was_held_out_leaks_through_a_warm_start(arena, asked):
    """The first champion's SFT is taught a prompt in no pair; a later drop brings a pair on it, and it is held out."""
    arena.open().teach(["What do you sell?", TAUGHT])
    arena.promote(arena.decide(arena.challenge(0.6)))
    first, taught = champion_digest(arena.home), arena.demonstrations
    arena.teach(["What do you sell?"])
    fresh = rewrite_pairs(arena, lambda rows: hold_out(rows, TESTS[asked]))
    words = "was taught 1 held-out prompts as demonstrations" if asked == "the same" else "was taught near copies of 1"

    found = examined(arena, fresh, "nothing_leaked", jaccard=0.7, near_copy_share=0)
    assert found.held is True, "the challenger began from the base model, so the champion alone has an advantage"
    assert f"; champion {words}" in found.found
    assert found.found.endswith("which favours it")

    arena.begin_from(first)
    found = examined(arena, arena.challenge(0.9), "nothing_leaked", jaccard=0.7, near_copy_share=0)
    assert found.held is False
    assert found.found.startswith(f"challenger, begun from {first[:12]}, {words}")
    assert found.advice.startswith("Train from the base model (operation.start_from: base)")
    assert (found.numbers["demonstrated to challenger"], found.numbers["nearly demonstrated to challenger"]) == (0, 0)

    shutil.rmtree(taught.path)
    found = examined(arena, standing_of(arena.home), "nothing_leaked", jaccard=0.7)
    assert found.held is None
    assert found.found == (
        f"the demonstrations that challenger, begun from {first[:12]}, learned from are gone; "
        "the demonstrations that champion learned from are gone"
    )


def examined_on_new_pairs(arena, standing):
    """The check for leaks of the same challenger, held up against the pairs that lie there now."""
    arena.pairs = arena.publish("preference_pairs", arena.world.root / "pairs")
    report = arena.publish(
        "evaluation_report",
        arena.world.root / f"out {arena.reports}",
        Parent("preference_pairs", "preference_pairs", arena.pairs.digest),
        Parent("dpo_checkpoint", "dpo_checkpoint", standing.challenger),
    )
    return examined(arena, standing_of(arena.home, report), "nothing_leaked")


def test_a_golden_set_pinned_after_training_names_the_way_out(arena):
    """The challenger learned from the table before it, where its prompts were trained on: train again, and how."""
    arena.open()
    standing = arena.challenge(0.9)
    old, path = arena.pairs, arena.world.root / "pairs"
    table = pq.read_table(path / "pairs.parquet")
    rows = table.to_pylist()
    train = next(row for row in rows if row["split"] == "train")
    golden = [
        {**row, "split": "held_out", "sources": [SOURCE]} for row in rows if row["prompt_id"] == train["prompt_id"]
    ]
    rest = [row for row in rows if row["prompt_id"] != train["prompt_id"]]
    pq.write_table(table.from_pylist(golden, schema=table.schema), path / GOLDEN_FILE)
    pq.write_table(table.from_pylist(rest, schema=table.schema), path / "pairs.parquet")
    found = examined_on_new_pairs(arena, standing)
    assert found.held is False
    assert "challenger was trained on 1 held-out prompts or clusters, 1 of them of the golden set" in found.found
    assert found.advice.startswith(
        "The challenger learned from an earlier table, as where a golden set was pinned since"
    )
    assert "materialize sft_checkpoint and dpo_checkpoint again" in found.advice
    assert old.digest != arena.pairs.digest


def test_near_copies_of_golden_prompts_in_the_tables_a_model_learned_from_count_too(arena):
    """Today's table leaves them out of training; the older one, from before the set was pinned, does not."""
    arena.open()
    standing = arena.challenge(0.9)
    path = arena.world.root / "pairs"
    table = pq.read_table(path / "pairs.parquet")
    rows = table.to_pylist()
    train = next(row for row in rows if row["split"] == "train")
    words = train["prompt"][-1]["content"]
    golden = {**train, "split": "held_out", "sources": [SOURCE], **dict.fromkeys(("prompt_id", "cluster_id"), "e" * 32)}
    golden |= {"pair_id": "e" * 32, "prompt": [{"role": "user", "content": f"{words} !!"}]}
    pq.write_table(table.from_pylist([golden], schema=table.schema), path / GOLDEN_FILE)
    rest = [row for row in rows if row["prompt_id"] != train["prompt_id"]]
    pq.write_table(table.from_pylist(rest, schema=table.schema), path / "pairs.parquet")
    found = examined_on_new_pairs(arena, standing)
    assert found.held is False
    assert found.found == "challenger was trained on 1 near copies of golden prompts"
    assert found.advice.startswith("The challenger learned from an earlier table")


def test_models_that_learned_what_was_taken_back_are_warned_of_and_stop_nobody(arena):
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.6)))
    first = champion_digest(arena.home)
    assert examined(arena, arena.challenge(0.9), "nothing_forgotten").held is True
    line = arena.home.ledger.append(
        "forgotten",
        person="Ada",
        reason="Ticket 4",
        what="annotator 00",
        forgotten={"annotators": ["00"], "records": [], "texts": []},
        drops=[],
        checkpoints=[first],
        pseudonyms=arena.home.pseudonym_fingerprint(),
    )
    decision = arena.decide(standing_of(arena.home))
    assert ruling(decision) is Ruling.PROMOTED
    said = f"the champion learned from what the tombstone on ledger line {line['seq'] + 1} took back"
    [warning] = decision.facts["warnings"]
    assert said in warning.replace("The champion", "the champion")
    assert "champion withdraw" in warning
    page = (decision.path / "decision.md").read_text()
    assert "- **warning**: The champion learned from" in page
    assert f"| nothing forgotten | {said} |" in page
    assert page.count("| WARNS |") == 1


def test_near_copies_of_held_out_prompts_in_training_are_counted_against_what_is_allowed(arena):
    arena.open()

    def copy(rows):
        held_out = next(row for row in rows if row["split"] == "held_out")
        copied = {**held_out, "split": "train", "pair_id": "f" * 32, "prompt_id": "f" * 32, "cluster_id": "f" * 32}
        return [*rows, copied]

    standing = rewrite_pairs(arena, copy)
    assert examined(arena, standing, "nothing_leaked", near_copy_share=0).held is False
    assert examined(arena, standing, "nothing_leaked", near_copy_share=0.5).held is True


def test_where_the_champions_pairs_are_gone_nobody_can_tell_and_only_a_person_promotes(arena):
    arena.open()
    arena.promote(arena.decide(arena.challenge(0.8)))
    old = arena.pairs
    standing = rewrite_pairs(arena, lambda rows: [{**row, "margin": 2.0} for row in rows])
    shutil.rmtree(old.path)
    found = examined(arena, standing, "nothing_leaked")
    assert found.held is None
    assert "the pairs that champion learned from are gone" in found.found
    assert ruling(arena.decide(standing)) is Ruling.BLOCKED
    assert ruling(arena.decide(standing, HAND)) is Ruling.PROMOTED_BY_HAND


def rambling(at, question):
    """A reply that meets every rule and says the same four words again and again."""
    words = question.split()
    return f"I am sorry, {words[-2]}. I have sent a new one. " + "a b c d " * 6


def test_a_broken_figure_that_the_profile_leaves_unguarded_does_not_forbid(arena):
    standing = arena.open().challenge(0.99, replies=rambling)
    guarded = arena.decide(standing)
    assert ruling(guarded) is Ruling.NOT_BETTER
    assert "Rise of repetition" in guarded.facts["reason"]
    kept = tuple(name for name in GUARDS if name not in {"repetition", "distinct_2"})
    free = arena.decide(standing, guarded=kept)
    assert ruling(free) is Ruling.PROMOTED
    values = json.loads((free.path / "decision.json").read_text())
    assert (values["guarded"], values["not_guarded"]) == (list(kept), ["repetition", "distinct_2"])
    assert {check["name"] for check in values["verdict"]["checks"] if not check["is_guarded"]} == {
        GUARDS["repetition"],
        GUARDS["distinct_2"],
    }
    page = (free.path / "decision.md").read_text()
    assert "; not guarded: repetition, distinct 2\n" in page
    assert page.count("| not guarded |") == 2
    assert "; not guarded: none\n" in (guarded.path / "decision.md").read_text()


def test_guards_that_nobody_knows_are_named_with_every_other_fault():
    assert ChampionSettings().guarded == tuple(GUARDS)
    values = {"guarded": ["perplexity", "charm", "wit"], "near_copy_share": 2}
    with pytest.raises(SettingsError) as refused:
        ChampionSettings.parse(values, where="the profile")
    assert all(word in str(refused.value) for word in ("'charm'", "'wit'", "near_copy_share"))
