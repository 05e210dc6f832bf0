"""AdamW's groups and the schedules, against transformers' own."""

import types

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)
from worlds import small_model

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.modeling import optimizer as optimizer_module
from dpo_pipeline.modeling.optimizer import learning_rate_at, make_optimizer, take_means, update_means
from dpo_pipeline.modeling.settings import OptimizerSettings

THEIRS = {
    "constant": lambda optimizer, warmup, _: get_constant_schedule_with_warmup(optimizer, warmup),
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
}


@pytest.mark.parametrize("schedule", THEIRS)
@pytest.mark.parametrize(("total", "share"), [(20, 0.1), (7, 0.5), (5, 0.0), (1, 1.0), (3, 1.0)])
def test_schedules_are_those_of_transformers(schedule, total, share):
    settings = OptimizerSettings(learning_rate=0.3, schedule=schedule, warmup_share=share)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = THEIRS[schedule](optimizer, -int(-total * share // 1), total)
    for step in range(total):
        assert learning_rate_at(step, total, settings) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_matrices_decay_and_norms_do_not():
    model = small_model("qwen2")
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3, weight_decay=0.1))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in spared["params"])
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_eight_bit_optimizers_say_what_they_need():
    with pytest.raises(CapacityError, match=r"dpo-pipeline\[quantized\]"):
        make_optimizer(small_model(), OptimizerSettings(learning_rate=1e-3, kind="adamw_8bit"))


@pytest.mark.parametrize(("kind", "name"), [("adamw_8bit", "AdamW8bit"), ("paged_adamw_8bit", "PagedAdamW8bit")])
def test_eight_bit_kinds_are_those_of_bitsandbytes(kind, name, monkeypatch):
    made = []
    classes = {n: lambda groups, lr, n=n: made.append((n, groups, lr)) for n in ("AdamW8bit", "PagedAdamW8bit")}
    bitsandbytes = types.SimpleNamespace(optim=types.SimpleNamespace(**classes))
    monkeypatch.setattr(optimizer_module, "require_bitsandbytes", lambda setting: bitsandbytes)
    make_optimizer(small_model(), OptimizerSettings(learning_rate=1e-3, kind=kind, weight_decay=0.1))
    [(found, groups, rate)] = made
    assert (found, rate, [group["weight_decay"] for group in groups]) == (name, 1e-3, [0.1, 0.0])


def test_the_running_mean_is_the_recurrence_and_takes_the_weights_place():
    """Weights 8, 4, 0 after three steps, decay 0.5: means 8, then 6, then 3."""
    weight = torch.nn.Parameter(torch.tensor([16.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.0)
    for value in (8.0, 4.0, 0.0):
        weight.data.fill_(value)
        update_means(optimizer, decay=0.5)
    take_means(optimizer)
    assert weight.item() == 3.0
