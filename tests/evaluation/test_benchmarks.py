"""The adapter to lm-evaluation-harness: its figures as rows, on a task of one's own; clear words without it."""

import importlib.util
import json
from pathlib import Path

import pytest

from dpo_pipeline.core.errors import CapacityError, InputError
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.evaluation import benchmarks
from dpo_pipeline.evaluation.benchmarks import BenchmarkRow, _rows, run_benchmarks
from dpo_pipeline.evaluation.settings import BenchmarkSettings

has_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is missing")
noisy = pytest.mark.filterwarnings("ignore")  # the harness's own dependencies warn of their next versions


def test_figures_and_errors_of_the_harness_become_rows():
    found = {
        "results": {
            "b": {"alias": "b", "exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A", "sample_len": 4},
            "a": {"acc,none": 0.25, "acc_stderr,none": 0.1, "ppl,none": float("nan")},
        },
        "n-samples": {"a": {"original": 8, "effective": 4}},
    }
    assert list(_rows(found)) == [
        BenchmarkRow("a", "acc", 0.25, 0.0540036, 0.445996, 4),
        BenchmarkRow("a", "ppl", None, None, None, 4),
        BenchmarkRow("b", "exact_match, strict", 0.5, None, None, 0),
    ]


def test_without_the_extra_it_is_said_before_anything_is_spent(make_world, speakers, monkeypatch):
    world = make_world(pair_count=4)
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CapacityError, match=r"pip install 'dpo-pipeline\[lm-eval\]'"):
        world.evaluate(speakers, monkeypatch, benchmarks={"tasks": ["ifeval"]})
    assert speakers["dpo"].asked == []


def test_every_trained_model_takes_them_and_the_page_shows_them(make_world, speakers, fake_speaker, monkeypatch):
    """The base of this world is made from random numbers and is left out."""
    from dpo_pipeline.evaluation import evaluate, hearing

    world, asked = make_world(pair_count=20), []

    def fake(model, tokenizer, **rest):
        asked.append(model)
        return [BenchmarkRow("<b>colours", "acc", 0.5, 0.25, 0.75, 16)]

    monkeypatch.setattr(hearing, "run_benchmarks", fake)
    monkeypatch.setattr(evaluate, "require_harness", lambda: None)
    for name, speaker in speakers.items():
        speaker.model, speaker.tokenizer = name, None
    world.evaluate({"base": fake_speaker("base"), **speakers}, monkeypatch, benchmarks={"tasks": ["colours"]})
    assert asked == ["sft", "dpo"]
    assert world.report()["benchmarks"]["dpo"][0]["value"] == 0.5
    assert "&lt;b&gt;colours" in world.page()
    assert "0.25–0.75" in world.page()


@pytest.fixture
def tasks(tmp_path):
    data = tmp_path / "colours.jsonl"
    rows = [{"question": f"The sky number {at} is", "answer": at % 2} for at in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Path(__file__).parent / "tasks" / "colours.yaml"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "colours.yaml").write_text(source.read_text().replace("DATA", str(data)))
    return tmp_path / "tasks"


@pytest.fixture
def model(tmp_path):
    from dpo_pipeline.modeling.base import open_base
    from dpo_pipeline.modeling.device import choose_device
    from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, ScratchModel

    scratch = ScratchModel(vocabulary_size=320, hidden_size=16, intermediate_size=16, layer_count=1, head_count=2)
    settings = ModelSettings(scratch=scratch, chat_template="chatml", max_length=128)
    compute = ComputeSettings(device="cpu", threads=1)
    return open_base(settings, corpus=["The sky is red or blue."] * 9, device=choose_device(compute))


@has_harness
@noisy
def test_a_task_of_ones_own_on_a_tiny_model(model, tasks, monkeypatch):
    """Eight questions whose right answers alternate: a model that always says the same is right in four."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = BenchmarkSettings(tasks=["colours"], folder=str(tasks))
    [row] = run_benchmarks(*model, settings=settings, batch_size=4, reporter=Quiet())
    assert (row.task, row.metric, row.count) == ("colours", "acc", 8)
    assert row.value is not None
    assert 0 <= row.value * 8 == round(row.value * 8) <= 8
    limited = settings.model_copy(update={"limit": 2})
    assert run_benchmarks(*model, settings=limited, batch_size=4, reporter=Quiet())[0].count == 2


@has_harness
@noisy
def test_a_task_nobody_knows_ends_in_a_sentence(model, tasks):
    settings = BenchmarkSettings(tasks=["no_such_task"], folder=str(tasks))
    with pytest.raises(InputError, match="no_such_task could not be run"):
        run_benchmarks(*model, settings=settings, batch_size=4, reporter=Quiet())
