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
