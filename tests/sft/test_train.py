"""SFT on small worlds: books, equal runs, cut steps, resumed runs, refusals; TRL's SFTTrainer as the witness."""

import json
import math

import pytest
import torch
from worlds import (
    ADAPTED,
    COMPUTE,
    SCRATCH,
    SFT,
    Notes,
    Stop,
    conversations,
    same_bytes,
    texts,
    write_demonstrations,
    write_pairs,
)

from dpo_pipeline.core.errors import InputError, TrainingError
from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling import session
from dpo_pipeline.modeling.batches import plan_steps
from dpo_pipeline.modeling.forward import Scorer
from dpo_pipeline.modeling.locks import sole_owner
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.settings import ModelSettings, OptimizerSettings
from dpo_pipeline.sft import train as stage
from dpo_pipeline.sft.settings import SftSettings
from dpo_pipeline.sft.train import train_sft


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    write_pairs(folder / "pairs", list(texts(10)))
    write_demonstrations(folder / "demonstrations", conversations(60))
    return folder


def train(
    root, name, *, model=SCRATCH, sft=SFT, compute=COMPUTE, reporter=None, work=None, drops=("demonstrations",), **more
):
    out = root / name
    out.mkdir()
    outcome = train_sft(
        [root / drop for drop in drops], root / "pairs", out, work=work or root / f"work {name}", sft=sft,
        model=model, compute=compute, reporter=reporter or Notes(), **more,
    )  # fmt: skip
    return out, outcome


@pytest.fixture(scope="module")
def trained(root):
    return train(root, "trained", sft=SFT.model_copy(update={"epochs": 3, "held_out_share": 0.2}))


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_the_loss_falls_and_the_books_balance(trained):
    out, outcome = trained
    assert losses(out)[0] > 5 > 3.5 > losses(out)[-1]
    assert outcome.facts["held_out_nll"] < 4
    assert outcome.books.kept["train"] == outcome.counts["conversations"]
    assert outcome.books.kept["held_out"] == outcome.counts["held_out_conversations"] > 5
    outcome.books.assert_balanced(of="the test")
    recorded = json.loads((out / "training.json").read_text())
    assert recorded["counts"]["steps"] == len(losses(out))
    assert recorded["settings"]["sft"]["epochs"] == 3


@pytest.mark.parametrize("model", [SCRATCH, ADAPTED], ids=["whole", "adapter"])
def test_the_same_again_gives_the_same_bytes(root, model):
    folders = [train(root, f"{i} {model.adapter is None}", model=model)[0] for i in range(2)]
    assert same_bytes(*folders) == []


def test_cutting_the_steps_smaller_changes_nothing_but_rounding(root):
    whole, _ = train(root, "whole")
    cut, _ = train(root, "cut", compute=COMPUTE.model_copy(update={"batch_tokens": 64}))
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-4)


def test_a_resumed_run_ends_where_a_straight_one_does(root):
    often = SFT.model_copy(update={"checkpoint_minutes": 1e-9, "batch_size": 8})
    straight, _ = train(root, "straight", sft=often)
    work = root / "work resumed"
    with pytest.raises(KeyboardInterrupt):
        train(root, "stopped", sft=often, reporter=Stop(after=4), work=work)
    resumed, outcome = train(root, "resumed", sft=often, work=work)
    assert outcome.remarks["resumed_from_step"] == 3
    assert same_bytes(straight, resumed) == []


def test_other_settings_do_not_resume_from_the_same_folder(root):
    often = SFT.model_copy(update={"checkpoint_minutes": 1e-9, "batch_size": 8})
    work = root / "work other"
    with pytest.raises(KeyboardInterrupt):
        train(root, "first", sft=often, reporter=Stop(after=4), work=work)
    notes = Notes()
    other = often.model_copy(update={"optimizer": OptimizerSettings(learning_rate=1e-3)})
    _, outcome = train(root, "second", sft=other, reporter=notes, work=work)
    assert outcome.remarks["resumed_from_step"] == 0
    assert any("belongs to other data, settings or code" in sentence for sentence in notes.sentences)


def test_two_trainings_never_share_a_work_folder(root):
    with (
        sole_owner(root / "work shared"),
        pytest.raises(TrainingError, match=r"another training, process \d+, is at work"),
    ):
        train(root, "shared", work=root / "work shared")


def test_nothing_to_learn_from_is_said(root):
    write_demonstrations(root / "none", [])
    with pytest.raises(InputError, match="no text to train the tokenizer on"):
        train(root, "nothing", drops=["none"])


def test_a_loss_that_is_not_finite_stops_with_the_conversation_named(root, monkeypatch):
    real = Scorer.logps

    def poisoned(self, batch):
        values = real(self, batch)
        return values * torch.where(torch.arange(len(values)) == 1, math.nan, 1.0) if values.requires_grad else values

    monkeypatch.setattr(Scorer, "logps", poisoned)
    work = root / "work poisoned"
    with pytest.raises(TrainingError, match=r"loss of step 1 is not finite for said-\d+\. .* lower sft\.optimizer"):
        train(root, "poisoned", work=work)
    monkeypatch.setattr(Scorer, "logps", real)
    train(root, "after poisoned", work=work)


def test_the_averaged_weights_are_published(root):
    averaged = SFT.model_copy(update={"optimizer": SFT.optimizer.model_copy(update={"ema_decay": 0.9})})
    (last, _), (mean, _) = train(root, "last"), train(root, "averaged", sft=averaged)
    assert losses(mean) == losses(last)
    assert same_bytes(mean / "model", last / "model") == ["model.safetensors"]


def test_over_long_and_injected_conversations_are_booked(root):
    turns = [{"role": "user", "content": "Say it all."}, {"role": "assistant", "content": "all " * 200}]
    injected = [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "Yes."}]
    write_demonstrations(root / "odd", [turns, injected])
    long = [{"role": "user", "content": "so on " * 100}, {"role": "assistant", "content": "Yes."}]
    write_demonstrations(root / "long", [long])
    notes = Notes()
    _, outcome = train(root, "oddities", drops=["demonstrations", "odd", "long"], reporter=notes)
    rejected, cut = outcome.books.rejected, outcome.counts["prompt_tokens_cut"]
    assert outcome.counts["prompts_cut"] == 1
    assert cut > 50
    told = f"Prompts cut at their beginning to fit max_length 128: 1, by {cut} tokens in all, {cut} at most."
    assert told in notes.sentences
    assert any(said.startswith("Left out as special_token_in_text: 1; the text spells") for said in notes.sentences)
    assert (rejected["response_too_long"], rejected["special_token_in_text"]) == (1, 1)
    outcome.books.assert_balanced(of="the test")


WATCHED = SFT.model_copy(
    update={
        "validation_share": 0.3, "validations": 10, "batch_size": 4, "epochs": 2, "checkpoint_minutes": 1e-9,
        "optimizer": OptimizerSettings(learning_rate=1e-30),
    }
)  # fmt: skip
IMPATIENT = WATCHED.model_copy(update={"patience": 2})
"""At a rate of 1e-30 no weight moves, so the third validation brings no gain on the first and training ends there."""


def test_prompts_are_kept_aside_to_watch_the_training_on_and_nothing_is_learned_from_them(root):
    learning = WATCHED.model_copy(update={"optimizer": OptimizerSettings(learning_rate=1e-2)})
    out, outcome = train(root, "watched", sft=learning)
    kept, history = outcome.books.kept, read_metrics(out / "metrics.jsonl")
    assert kept["train"] + kept["validation"] + kept["held_out"] + outcome.books.rejected_count == 60
    assert kept["validation"] == outcome.counts["validation_conversations"] > 5
    assert kept["train"] == outcome.counts["conversations"]
    seen = [line["validation/loss"] for line in history if "validation/loss" in line]
    assert len(seen) == 10
    assert seen[0] > 5 > 4 > seen[-1], "per token and in nats, like the loss"
    assert (outcome.facts["stopped_early"], outcome.counts["steps"]) == ("no", outcome.counts["steps_planned"])


def test_patience_ends_the_training_and_its_record_says_so(root):
    notes = Notes()
    out, outcome = train(root, "impatient", sft=IMPATIENT, reporter=notes)
    recorded = json.loads((out / "training.json").read_text())
    steps, planned = recorded["counts"]["steps"], recorded["counts"]["steps_planned"]
    assert steps == math.ceil(3 * planned / 10) == len(losses(out)) < planned
    assert recorded["facts"]["stopped_early"].startswith(
        f"after step {steps} of {planned}: the last 2 validations brought no better loss than "
    )
    assert f"Stopped early, {recorded['facts']['stopped_early']}." in notes.sentences
    first = math.ceil(planned / 10)
    assert recorded["counts"]["published_step"] == first, "of equal validations the earliest"
    assert f"Published are the weights after step {first}, the best of its validations." in notes.sentences
    assert recorded["counts"]["tokens"] == outcome.counts["tokens"] < 60 * 128


@pytest.mark.parametrize("after", ["one validation", "the step it stops at", "the stop, before it publishes"])
def test_a_training_resumed_around_an_early_stop_ends_where_a_straight_one_does(root, after, monkeypatch):
    straight, outcome = train(root, f"straight {after}", sft=IMPATIENT)
    last, work = outcome.counts["steps"], root / f"work early {after}"
    if after == "the stop, before it publishes":
        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(session, "save_policy", interrupted)
            train(root, f"stopped {after}", sft=IMPATIENT, work=work)
    else:
        with pytest.raises(KeyboardInterrupt):
            reporter = Stop(after=last if after == "the step it stops at" else last // 3)
            train(root, f"stopped {after}", sft=IMPATIENT, reporter=reporter, work=work)
    resumed, outcome = train(root, f"resumed {after}", sft=IMPATIENT, work=work)
    assert 0 < outcome.remarks["resumed_from_step"] <= last
    assert same_bytes(straight, resumed) == []


WORSE = IMPATIENT.model_copy(update={"patience": 3})


def worsening(monkeypatch, work, *, best):
    """Validations whose loss falls until step `best` and rises after it; the sums of weights they saw, by step."""

    def validate(scorer, _):
        history = work / "history.jsonl"
        step = len(history.read_text().splitlines()) + 1
        seen[step] = sum(float(p.detach().double().sum()) for p in scorer.model.parameters())
        return abs(step - best) + 1.0

    seen = {}
    monkeypatch.setattr(stage, "validate", validate)
    return seen


def weights_sum(folder):
    return sum(float(p.detach().double().sum()) for p in load_policy(folder / "model", device="cpu")[0].parameters())


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_patience_publishes_the_best_weights_not_the_last(root, monkeypatch, decay):
    """Planted: the validation after step 4 is the best. What is published is the model as it was then."""
    moving, work = OptimizerSettings(learning_rate=1e-2, ema_decay=decay), root / f"work best {decay}"
    seen = worsening(monkeypatch, work, best=4)
    out, outcome = train(root, f"best {decay}", sft=WORSE.model_copy(update={"optimizer": moving}), work=work)
    steps = list(seen)
    assert steps.index(4) == len(steps) - 4, "three in vain, then it stops"
    assert (outcome.counts["published_step"], outcome.counts["steps"]) == (4, steps[-1])
    published = weights_sum(out)
    if decay:
        assert abs(published - seen[4]) > 1e-3, "the running mean of the weights at that step"
    else:
        assert published == pytest.approx(seen[4], abs=1e-9)
        assert all(abs(published - seen[step]) > 1e-3 for step in steps if step != 4)


@pytest.mark.parametrize("stops", [(5,), (4, 7), (3, 6, 8)])
def test_a_training_resumed_after_its_best_validation_publishes_what_a_straight_one_does(root, monkeypatch, stops):
    moving = WORSE.model_copy(update={"optimizer": OptimizerSettings(learning_rate=1e-2)})
    work = root / f"work best straight {stops}"
    worsening(monkeypatch, work, best=4)
    straight, outcome = train(root, f"best straight {stops}", sft=moving, work=work)
    assert outcome.counts["steps"] >= max(stops)
    work = root / f"work best stopped {stops}"
    worsening(monkeypatch, work, best=4)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(root, f"best stopped {stop} of {stops}", sft=moving, work=work, reporter=Stop(after=stop))
    names = sorted(path.name for path in (work / "checkpoints").iterdir())
    assert len(names) <= 4, "the two newest, and the two last records"
    resumed, again = train(root, f"best resumed {stops}", sft=moving, work=work)
    assert again.remarks["resumed_from_step"] == stops[-1] - 1
    assert again.counts["published_step"] == 4
    assert same_bytes(straight, resumed) == []


@pytest.mark.parametrize(("best", "again_from"), [(2, 0), (4, 2)])
def test_a_resumed_training_whose_best_weights_are_lost_goes_back_to_before_them(root, monkeypatch, best, again_from):
    """It notices when it begins, not at its end, and publishes what a straight one does."""
    moving = WORSE.model_copy(update={"optimizer": OptimizerSettings(learning_rate=1e-2)})
    work = root / f"work lost straight {best}"
    worsening(monkeypatch, work, best=best)
    straight, _ = train(root, f"lost straight {best}", sft=moving, work=work)
    work = root / f"work lost {best}"
    worsening(monkeypatch, work, best=best)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(session, "save_policy", interrupted)
        train(root, f"before {best} is lost", sft=moving, work=work)
    with (work / "checkpoints" / f"step-{best:09d}" / "weights.safetensors").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\x01\x02\x03\x04")
    notes = Notes()
    resumed, outcome = train(root, f"lost {best}", sft=moving, work=work, reporter=notes)
    assert outcome.remarks["resumed_from_step"] == again_from
    assert any(f"the checkpoint of step {best}, the best until then, is lost" in each for each in notes.sentences)
    assert same_bytes(straight, resumed) == []


def test_best_weights_that_are_lost_while_it_trains_are_not_published(root, monkeypatch):
    work = root / "work altered"
    worsening(monkeypatch, work, best=2)

    class Alters(Notes):
        def metrics(self, step, values):
            super().metrics(step, values)
            if step == 3:
                (work / "checkpoints" / "step-000000002" / "weights.safetensors").write_bytes(b"altered")

    with pytest.raises(TrainingError, match=r"the best, cannot be had back: .*weights.safetensors is not what was"):
        train(root, "altered", sft=WORSE, work=work, reporter=Alters())


def test_a_base_changed_in_place_is_another_training(root):
    """What a checkpoint was begun from is known by its contents: a retry on changed weights starts anew."""
    first, _ = train(root, "a base")
    named = ModelSettings(path=str(first / "model"), max_length=SCRATCH.max_length)
    work, often = root / "work base", SFT.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(KeyboardInterrupt):
        train(root, "base stopped", model=named, sft=often, work=work, reporter=Stop(after=3))
    _, outcome = train(root, "base resumed", model=named, sft=often, work=work)
    assert outcome.remarks["resumed_from_step"] == 2
    second, _ = train(root, "another base", sft=SFT.model_copy(update={"batch_size": 4}))
    weights = "model.safetensors"
    (first / "model" / weights).write_bytes((second / "model" / weights).read_bytes())
    notes = Notes()
    _, outcome = train(root, "base changed", model=named, sft=often, work=work, reporter=notes)
    assert outcome.remarks["resumed_from_step"] == 0
    assert any("it belongs to other data, settings or code" in sentence for sentence in notes.sentences)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_patience_without_anything_to_look_at_is_refused():
    with pytest.raises(ValueError, match="needs conversations to look at; set validation_share above 0"):
        SftSettings(patience=2)


def test_a_checkpoint_is_a_base_for_the_next_training(root, trained):
    base = ModelSettings(path=str(trained[0] / "model"), max_length=128)
    out, _ = train(root, "continued", model=base)
    assert losses(out)[0] < 3.5
    load_policy(out / "model", device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_20_steps_are_those_of_trls_sft_trainer(root):
    """The same checkpoint, conversations and batches in TRL, loss on completions: losses and gradient norms agree."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder = train(root, "start")[0] / "model"
    count, batch, rate = 160, 8, 1e-3
    said = conversations(count, seed=5)
    write_demonstrations(root / "parity", said)
    sft = SFT.model_copy(
        update={
            "batch_size": batch,
            "held_out_share": 0.0,
            "held_out_similarity": 1.0,
            "optimizer": OptimizerSettings(learning_rate=rate, schedule="constant", warmup_share=0),
        }
    )
    model = ModelSettings(path=str(folder), max_length=256)
    ours, outcome = train(root, "ours", model=model, sft=sft, drops=["parity"])
    assert outcome.counts["conversations"] == count
    order = plan_steps([1] * count, batch_size=batch, epochs=1, seed=seed_for(model.seed, "sft"))
    rows = [{"prompt": said[i][:-1], "completion": said[i][-1:]} for step in order for i in step]
    arguments = SFTConfig(
        output_dir=str(root / "trl"), per_device_train_batch_size=batch, learning_rate=rate,
        lr_scheduler_type="constant", num_train_epochs=1, max_length=256, bf16=False, gradient_checkpointing=False,
        use_cpu=True, logging_steps=1, save_strategy="no", report_to=[], train_sampling_strategy="sequential",
        dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    theirs = [line for line in trainer.state.log_history if "loss" in line]
    mine = read_metrics(ours / "metrics.jsonl")
    assert len(mine) == len(theirs) == count // batch
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in theirs], rel=1e-4), name
    assert math.isfinite(mine[-1]["loss"])


def test_known_tokens_change_no_byte_and_only_new_conversations_are_tokenized(root):
    write_demonstrations(root / "more", conversations(6, seed=8))
    sft = SFT.model_copy(update={"held_out_share": 0.2})
    first, _ = train(root, "one drop", sft=sft)
    drops = ("demonstrations", "more")
    anew, _ = train(root, "two drops", sft=sft, drops=drops)
    # From scratch the tokenizer is made from the demonstrations: with the second drop it is another one.
    _, outcome = train(root, "another tokenizer", sft=sft, drops=drops, known=[first])
    assert outcome.remarks["tokenized"] == sum(outcome.books.kept.values()) > 50
    again, outcome = train(root, "two drops again", sft=sft, drops=drops, known=[anew])
    assert outcome.remarks["tokenized"] == 0
    assert same_bytes(anew, again) == []


def test_from_a_checkpoint_the_tokenizer_stays_and_a_new_drop_tokenizes_only_itself(root):
    write_demonstrations(root / "later", conversations(6, seed=11))
    begun, _ = train(root, "begun")
    first, outcome = train(root, "gone on", start=begun)
    assert outcome.facts["started_from"] == "champion begun"
    drops = ("demonstrations", "later")
    anew, _ = train(root, "gone on with more", start=begun, drops=drops)
    again, outcome = train(root, "gone on with more again", start=begun, drops=drops, known=[first])
    assert outcome.remarks["tokenized"] == 6
    assert same_bytes(anew, again) == []
