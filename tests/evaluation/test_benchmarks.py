"""The adapter to lm-evaluation-harness: its figures as rows, on a task of one's own; clear words without it."""

import importlib.util
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.errors import CapacityError, InputError
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.evaluation import benchmarks
from dpo_pipeline.evaluation.benchmark_answers import BenchmarkAnswer, answers_of, figure_of
from dpo_pipeline.evaluation.benchmarks import BenchmarkRow, Taken, _rows, run_benchmarks
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
    assert list(_rows(found, [])) == [
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
        answers = [BenchmarkAnswer("<b>colours", "acc", str(at), "d", float(at % 2), "0", "[]") for at in range(16)]
        mean = BenchmarkRow("<b>colours", "acc", *figure_of([at % 2 for at in range(16)]), 16, is_mean_of_answers=True)
        return Taken([mean, BenchmarkRow("<b>colours", "bleu", 31.5, None, None, 16)], answers)

    monkeypatch.setattr(hearing, "run_benchmarks", fake)
    monkeypatch.setattr(evaluate, "require_harness", lambda: None)
    for name, speaker in speakers.items():
        speaker.model, speaker.tokenizer = name, None
    world.evaluate({"base": fake_speaker("base"), **speakers}, monkeypatch, benchmarks={"tasks": ["colours"]})
    assert asked == ["sft", "dpo"]
    assert world.report()["benchmarks"]["dpo"][0]["value"] == 0.5
    assert "&lt;b&gt;colours" in world.page()
    assert "0.247–0.753" in world.page()
    stored = pq.read_table(world.root / "out" / "benchmark_answers.parquet").to_pylist()
    assert len(stored) == 32
    assert stored[1] == {
        "model": "sft",
        "task": "<b>colours",
        "metric": "acc",
        "item": "1",
        "item_sha256": "d",
        "value": 1.0,
        "target": "0",
        "response": "[]",
    }


def test_answers_are_read_from_what_the_harness_returns_and_figures_follow_from_them():
    """Four questions under two filters; the harness's own mean and error are those of the answers."""
    said = {"doc_hash": "ab", "target": 1, "filtered_resps": ["é"], "metrics": ["exact_match", "f1"], "f1": (1, 2)}
    samples = [
        {**said, "doc_id": at, "filter": way, "exact_match": float(at in right)}
        for way, right in (("strict", {0, 1}), ("none", {3}))
        for at in (10, 2, 1, 0, 3)[1:]
    ]
    found = {
        "results": {
            "b": {
                "exact_match,strict": 0.5,
                "exact_match_stderr,strict": 0.28867513,
                "exact_match,none": 0.26,
                "exact_match_stderr,none": 0.25,
                "f1,strict": 0.7,
            }
        },
        "n-samples": {"b": {"effective": 4}},
        "samples": {"b": samples},
    }
    answers = list(answers_of(found))
    assert [(one.metric, one.item, one.value) for one in answers if one.metric.startswith("exact_match, ")] == [
        ("exact_match, strict", "0", 1.0),
        ("exact_match, strict", "1", 1.0),
        ("exact_match, strict", "2", 0.0),
        ("exact_match, strict", "3", 0.0),
    ]
    assert (answers[0].target, answers[0].response, answers[0].item_sha256) == ("1", '["é"]', "ab")
    assert {one.value for one in answers if one.metric.startswith("f1")} == {None}
    assert list(_rows(found, answers)) == [
        BenchmarkRow("b", "exact_match", 0.26, -0.229991, 0.749991, 4),
        BenchmarkRow("b", "exact_match, strict", 0.5, -0.0657929, 1.06579, 4, is_mean_of_answers=True),
        BenchmarkRow("b", "f1, strict", 0.7, None, None, 4),
    ]


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
    [row], answers = run_benchmarks(*model, settings=settings, batch_size=4, reporter=Quiet())
    assert row.is_mean_of_answers
    assert [(answer.item, answer.target) for answer in answers] == [(str(at), str(at % 2)) for at in range(8)]
    assert figure_of([answer.value for answer in answers]) == (row.value, row.low, row.high)
    assert (row.task, row.metric, row.count) == ("colours", "acc", 8)
    assert row.value is not None
    assert 0 <= row.value * 8 == round(row.value * 8) <= 8
    limited = settings.model_copy(update={"limit": 2})
    assert run_benchmarks(*model, settings=limited, batch_size=4, reporter=Quiet()).rows[0].count == 2


@has_harness
@noisy
def test_a_task_nobody_knows_ends_in_a_sentence(model, tasks):
    settings = BenchmarkSettings(tasks=["no_such_task"], folder=str(tasks))
    with pytest.raises(InputError, match="no_such_task could not be run"):
        run_benchmarks(*model, settings=settings, batch_size=4, reporter=Quiet())
