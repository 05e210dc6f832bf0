"""DPO training on small worlds: books, ln 2, equal runs, cut steps, resumed runs, weights, guards."""

import filecmp
import json
import math
from contextlib import nullcontext
from itertools import combinations

import pyarrow.parquet as pq
import pytest
import torch
from worlds import ADAPTED, COMPUTE, DPO, SCRATCH, Notes, Stop, World, same_bytes, texts, write_pairs

from dpo_pipeline.core.errors import ArtifactError, InputError, TrainingError
from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.dpo import comparisons
from dpo_pipeline.dpo import train as dpo_train
from dpo_pipeline.dpo.pairs import iterate_pairs
from dpo_pipeline.dpo.reference import TABLE, compute_reference
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.dpo.train import train_dpo
from dpo_pipeline.modeling.curves import DPO_PANELS
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.scoring import Pair, score_pairs
from dpo_pipeline.modeling.settings import OptimizerSettings
from dpo_pipeline.modeling.template import encode

ONE_PASS = DPO.model_copy(update={"epochs": 1.0})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("whole"), SCRATCH)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    return World(tmp_path_factory.mktemp("adapted"), ADAPTED)


@pytest.fixture(scope="module")
def trained(world):
    return world.train("trained")


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_training_starts_at_ln_2_and_learns(trained):
    out, outcome = trained
    history = read_metrics(out / "metrics.jsonl")
    assert [line["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(history[0]["rewards/margin"]) < 1e-5
    assert history[-1]["rewards/margin"] > 0.01
    assert history[-1]["loss"] < 0.69
    assert outcome.counts["pairs"] == 24
    assert outcome.books.as_dict() == {"in": 24, "kept": {"trained": 24, "validation": 0}, "merged": 0, "rejected": {}}
    assert sorted(p.name for p in out.iterdir()) == ["curves.png", "metrics.jsonl", "model", "training.json"]
    assert json.loads((out / "training.json").read_text())["settings"]["dpo"]["beta"] == 0.1
    assert "tokens_per_second" not in history[0], "seconds would make the artifact differ from run to run"


def test_every_number_of_a_step_has_its_curve(world):
    """Also those of validation; the picture itself was looked at."""
    out, _ = world.train("drawn", dpo=DPO.model_copy(update={"validation_share": 0.3}))
    names = {name for line in read_metrics(out / "metrics.jsonl") for name in line} - {"step"}
    assert {name for _, panel in DPO_PANELS for name in panel} == names


def test_the_same_again_gives_the_same_bytes(world, trained):
    again, _ = world.train("again")
    assert same_bytes(trained[0], again) == []


def test_cutting_the_steps_smaller_changes_nothing_but_rounding(world, trained):
    cut, _ = world.train("cut", compute=COMPUTE.model_copy(update={"batch_tokens": 100}))
    assert losses(cut) == pytest.approx(losses(trained[0]), rel=1e-5)


def test_gradient_checkpointing_gives_the_same_bytes(world, trained):
    again, _ = world.train("checkpointed", compute=COMPUTE.model_copy(update={"gradient_checkpointing": True}))
    assert same_bytes(trained[0], again) == []


def test_the_policy_loads_and_speaks(trained):
    model, tokenizer = load_policy(trained[0] / "model", device="cpu")
    assert model.config.vocab_size == len(tokenizer)
    assert not model.training


@pytest.mark.parametrize("ema_decay", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["world", "adapted"])
def test_a_resumed_run_ends_where_a_straight_one_does(kind, ema_decay, request):
    world = request.getfixturevalue(kind)
    optimizer = DPO.optimizer.model_copy(update={"ema_decay": ema_decay})
    often = DPO.model_copy(update={"checkpoint_minutes": 1e-9, "optimizer": optimizer})
    straight, _ = world.train(f"straight {ema_decay}", dpo=often)
    work = world.root / f"work resumed {ema_decay}"
    with pytest.raises(KeyboardInterrupt):
        world.train(f"stopped {ema_decay}", dpo=often, reporter=Stop(after=4), work=work)
    notes = Notes()
    resumed, outcome = world.train(f"resumed {ema_decay}", dpo=often, reporter=notes, work=work)
    assert any("Resumed" in sentence for sentence in notes.sentences)
    assert notes.numbers[0][0] == outcome.remarks["resumed_from_step"] + 1 == 4
    assert same_bytes(straight, resumed) == []


def test_the_averaged_weights_are_published_and_the_numbers_of_the_steps_stay(world, trained):
    averaged = DPO.model_copy(update={"optimizer": DPO.optimizer.model_copy(update={"ema_decay": 0.5})})
    out, _ = world.train("averaged", dpo=averaged)
    assert losses(out) == losses(trained[0])
    last, mean, start = (load_policy(f / "model", device="cpu")[0] for f in (trained[0], out, world.checkpoint))
    flat = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (start, mean, last)]
    way = [float((weights - flat[0]).norm()) for weights in (flat[2], flat[1])]
    assert 0.5 * way[0] < way[1] < 0.99 * way[0], "between the first steps and the last"


def test_an_adapter_is_continued_and_its_base_untouched(adapted):
    out, outcome = adapted.train("adapter")
    assert losses(out)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(out)[-1] < 0.692
    assert outcome.counts["trained_parameters"] < outcome.counts["parameters"] / 5
    base = "model/base/model.safetensors"
    assert filecmp.cmp(out / base, adapted.checkpoint / base, shallow=False)
    model, _ = load_policy(out / "model", device="cpu")
    assert len(model.peft_config) == 1


def test_a_fresh_adapter_switched_off_is_the_reference_after_training_too(world):
    """Whole weights from SFT, an adapter in DPO: the table is what the policy says without its adapter."""
    model = ADAPTED
    reference, out = world.folder("reference for adapter"), world.folder("adapter on whole")
    common = {"model": model, "compute": COMPUTE, "reporter": Notes()}
    compute_reference(world.pairs, world.checkpoint, reference, known=[], **common)
    train_dpo(world.pairs, reference, world.checkpoint, out, work=world.root / "work fresh", dpo=DPO, **common)
    policy, tokenizer = load_policy(out / "model", device="cpu")
    pairs = [Pair(*(row[name] for name in Pair._fields)) for block in iterate_pairs(world.pairs) for row in block]
    scores = {}
    for name, context in (("on", nullcontext()), ("off", policy.disable_adapter())):
        with context:
            encoder = Encoder(tokenizer, max_length=model.max_length)
            found = score_pairs(policy, encoder, pairs, compute=COMPUTE, reporter=Notes())
        scores[name] = torch.tensor([[row.chosen_logp, row.rejected_logp] for row in found.rows])
    table = pq.read_table(reference / TABLE).to_pylist()
    frozen = torch.tensor([[row["chosen_logp"], row["rejected_logp"]] for row in table])
    assert (scores["off"] - frozen).abs().max() < 1e-4
    assert (scores["on"] - frozen).abs().max() > 1e-2, "the adapter has learned something"


def test_a_ranking_of_four_is_trained_as_one_prompt_and_four_branches(world):
    """Twelve sequences, as pairs one by one would be, are more than six times the tokens."""
    prompt = [{"role": "user", "content": "My lamp is broken. " * 4}]
    replies = ["I am sorry.", "A new one is on its way.", "Bad luck.", "No."]
    ranking = [(prompt, better, worse) for better, worse in combinations(replies, 2)]
    pairs = write_pairs(world.root / "ranking", ranking, held_out_every=0)
    reference = world.folder("ranking reference")
    world.refer(reference, pairs=pairs)
    _, whole = world.train("ranking whole", pairs=pairs, reference=reference, dpo=ONE_PASS)
    assert (whole.counts["groups"], whole.counts["pairs"], whole.counts["steps"]) == (1, 6, 1)
    table = pq.read_table(reference / TABLE).to_pylist()
    tokenizer = load_policy(world.checkpoint / "model", device="cpu")[1]
    [encoded] = encode(tokenizer, [prompt], [replies], max_length=world.model.max_length)
    assert whole.counts["tokens"] == len(encoded.prompt) + sum(map(len, encoded.responses))
    apart = 6 * 2 * len(encoded.prompt) + sum(row["chosen_tokens"] + row["rejected_tokens"] for row in table)
    assert apart > 6 * whole.counts["tokens"]


def test_agreement_weighs_pairs(world):
    """p is 1 and 0.75 in turn: weights 1 and 0.5, so the first loss is between ln 2 / 2 and ln 2."""
    out, _ = world.train("weighed", dpo=DPO.model_copy(update={"use_agreement": True}))
    assert math.log(2) / 2 <= losses(out)[0] < math.log(2) - 1e-3


def test_an_over_long_pair_is_left_out_and_booked(world):
    triples = [*list(texts(30))[:6], ([{"role": "user", "content": "Tell me all."}], "word " * 200, "no")]
    pairs = write_pairs(world.root / "long pairs", triples, held_out_every=100)
    pairs_reference = world.folder("long reference")
    told = world.refer(pairs_reference, pairs=pairs)
    assert told.books.as_dict()["rejected"] == {"response_too_long": 1}
    notes = Notes()
    out, outcome = world.train("long", pairs=pairs, reference=pairs_reference, reporter=notes)
    assert any(
        sentence.startswith("Left out as response_too_long: 1; a response leaves") for sentence in notes.sentences
    )
    assert outcome.books.as_dict()["rejected"] == {"response_too_long": 1}
    assert json.loads((out / "training.json").read_text())["left_out"] == {"pair-6": "response_too_long"}


def test_a_table_of_other_pairs_is_refused(world):
    others = write_pairs(world.root / "other pairs", list(texts(5, seed=9)))
    with pytest.raises(ArtifactError, match="4 of 4 pairs are not in the reference table"):
        world.train("other", pairs=others)


def test_nothing_to_learn_from_is_said_with_the_books(world):
    none = write_pairs(world.root / "no pairs", list(texts(1)), held_out_every=1)
    with pytest.raises(InputError, match="no pair is left to learn from"):
        world.train("none", pairs=none)


def test_a_reference_that_is_another_model_is_refused(world, monkeypatch):
    frozen = dpo_train.reference_of
    monkeypatch.setattr(dpo_train, "reference_of", lambda *a, **k: frozen(*a, **k) - [5.0, 0.0])
    with pytest.raises(TrainingError, match=r"differs from the reference table by .* nats per token"):
        world.train("differs")


def test_a_loss_that_is_not_finite_stops_with_the_pairs_named(world, monkeypatch):
    work = world.root / "work nan"
    real = comparisons.preference_losses

    def poisoned(*arguments, **options):
        values = real(*arguments, **options)
        return values + torch.where(torch.arange(len(values)) == 1, math.nan, 0.0)

    monkeypatch.setattr(comparisons, "preference_losses", poisoned)
    with pytest.raises(TrainingError, match=r"step 1 is not finite for pair-\d+\. .* lower dpo\.optimizer"):
        world.train("nan", work=work)
    monkeypatch.setattr(comparisons, "preference_losses", real)
    world.train("after nan", work=work)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(world, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a, **k: torch.tensor(math.inf))
    with pytest.raises(TrainingError, match="gradient norm inf, in examples pair-"):
        world.train("infinite")


def test_validation_prompts_are_kept_aside_and_patience_ends_the_training(world):
    watched = DPO.model_copy(update={"validation_share": 0.3, "validations": 6, "epochs": 3.0})
    out, outcome = world.train("watched", dpo=watched)
    kept = outcome.books.kept
    assert kept["trained"] + kept["validation"] == 24
    assert kept["validation"] == outcome.counts["validation_pairs"] > 3
    history = read_metrics(out / "metrics.jsonl")
    assert sum("validation/accuracy" in line for line in history) == 6
    notes = Notes()
    impatient = watched.model_copy(update={"patience": 1, "optimizer": OptimizerSettings(learning_rate=1e-9)})
    out, outcome = world.train("impatient", dpo=impatient, reporter=notes)
    assert outcome.counts["steps"] == len(losses(out)) < len(history)
    assert any("the last validation brought no better accuracy" in sentence for sentence in notes.sentences)


def test_a_training_resumed_around_an_early_stop_ends_where_a_straight_one_does(world):
    """At a rate of 1e-30 no weight moves, so the second validation is no better than the first, and training ends."""
    still = OptimizerSettings(learning_rate=1e-30)
    impatient = DPO.model_copy(
        update={
            "validation_share": 0.3, "validations": 6, "epochs": 3.0, "patience": 1, "optimizer": still,
            "checkpoint_minutes": 1e-9,
        }
    )  # fmt: skip
    straight, outcome = world.train("straight to the stop", dpo=impatient)
    last, work = outcome.counts["steps"], world.root / "work around a stop"
    assert outcome.facts["stopped_early"].startswith(
        f"after step {last} of {outcome.counts['steps_planned']}: the last"
    )
    with pytest.raises(KeyboardInterrupt):
        world.train("stopped at the stop", dpo=impatient, reporter=Stop(after=last), work=work)
    resumed, outcome = world.train("resumed at the stop", dpo=impatient, work=work)
    assert outcome.remarks["resumed_from_step"] == last - 1
    assert same_bytes(straight, resumed) == []


def test_patience_publishes_the_weights_of_the_best_validation(world, monkeypatch):
    """Planted: accuracy is highest after step 2, whatever the weights; they are published as they were then."""
    norms, work = {}, world.root / "work to the best"

    def validate(scorer, *_, **__):
        step = len((work / "history.jsonl").read_text().splitlines()) + 1
        norms[step] = sum(float(p.detach().double().sum()) for p in scorer.model.parameters())
        return {"validation/accuracy": 1 - 0.1 * abs(step - 2)}

    monkeypatch.setattr(dpo_train, "validate", validate)
    learning = OptimizerSettings(learning_rate=1e-2)
    patient = DPO.model_copy(
        update={"validation_share": 0.3, "validations": 99, "epochs": 3.0, "patience": 2, "optimizer": learning}
    )
    notes = Notes()
    out, outcome = world.train("to the best", dpo=patient, work=work, reporter=notes)
    assert (outcome.counts["published_step"], outcome.counts["steps"], list(norms)) == (2, 4, [1, 2, 3, 4])
    published = load_policy(out / "model", device="cpu")[0]
    found = sum(float(p.detach().double().sum()) for p in published.parameters())
    assert found == pytest.approx(norms[2], abs=1e-9)
    assert abs(norms[4] - norms[2]) > 1e-3
    assert "Published are the weights after step 2, the best of its validations." in notes.sentences
    assert json.loads((out / "training.json").read_text())["counts"]["published_step"] == 2


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="set validation_share above 0"):
        DpoSettings(patience=2)
