"""The release: weights unchanged, pairs as other tools read them, a card with the report's own figures."""

import json

import pyarrow as pa
import pytest

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.modeling.settings import ModelSettings, ScratchModel
from dpo_pipeline.release.release import release_model
from dpo_pipeline.release.settings import PairFormat, ReleaseSettings

PROMPT = [{"role": "user", "content": "Where is my kettle? – #MAPLE-72"}]
ROWS = [
    {"split": "train", "prompt": PROMPT, "chosen": "On its way.", "rejected": "No idea!!"},
    {"split": "held_out", "prompt": PROMPT, "chosen": "Sent today.", "rejected": ""},
]
FACTS = {"outcome": "better", "reason": "It rose.", "dpo/passed": 0.96, "dpo/passed/low": 0.93, "dpo/passed/high": 0.99}


@pytest.fixture
def folders(tmp_path):
    found = {
        kind: tmp_path / kind / (kind[0] * 64) for kind in ("dpo_checkpoint", "evaluation_report", "preference_pairs")
    }
    for folder in found.values():
        folder.mkdir(parents=True)
    (found["dpo_checkpoint"] / "model").mkdir()
    (found["dpo_checkpoint"] / "model" / "model.safetensors").write_bytes(b"weights")
    (found["evaluation_report"] / "manifest.json").write_text(
        json.dumps({"facts": FACTS, "counts": {"held_out_pairs": 3}})
    )
    counts = {"pairs_train": 1, "pairs_held_out": 1}
    trained = {"dpo": {"beta": 0.1, "optimizer": {"learning_rate": 2e-4}}, "model": {"seed": 17}}
    (found["dpo_checkpoint"] / "manifest.json").write_text(json.dumps({"settings": trained}))
    of_pairs = {"counts": counts, "settings": {"preferences": {"held_out_share": 0.1}}}
    (found["preference_pairs"] / "manifest.json").write_text(json.dumps(of_pairs))
    write_table(found["preference_pairs"] / "pairs.parquet", pa.Table.from_pylist(ROWS))
    return found


def released(folders, tmp_path, promotion=None, **settings):
    out = tmp_path / "out"
    out.mkdir()
    outcome = release_model(
        folders["dpo_checkpoint"],
        folders["evaluation_report"],
        folders["preference_pairs"],
        out,
        release=ReleaseSettings(**settings),
        model=ModelSettings(scratch=ScratchModel()),
        promotion=promotion or {"promoted": True, "mode": "auto", "reason": "It gained 40 points."},
        reporter=Quiet(),
    )
    return outcome, out


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_pairs_stand_as_trl_and_as_openai_read_them_and_with_no_extra_field(folders, tmp_path):
    outcome, out = released(folders, tmp_path)
    assert lines(out / "pairs" / "trl" / "train.jsonl") == [
        {
            "prompt": PROMPT,
            "chosen": [{"role": "assistant", "content": "On its way."}],
            "rejected": [{"role": "assistant", "content": "No idea!!"}],
        }
    ]
    assert lines(out / "pairs" / "openai" / "held_out.jsonl") == [
        {
            "input": {"messages": PROMPT},
            "preferred_output": [{"role": "assistant", "content": "Sent today."}],
            "non_preferred_output": [{"role": "assistant", "content": ""}],
        }
    ]
    assert outcome.counts == {"weight_bytes": 7, "pairs_train": 1, "pairs_held_out": 1}


def test_weights_are_copied_as_they_are_and_the_card_states_verdict_figures_and_digests(folders, tmp_path):
    _, out = released(folders, tmp_path, pair_formats=[PairFormat.TRL])
    assert (out / "model" / "model.safetensors").read_bytes() == b"weights"
    card = (out / "model" / "README.md").read_text()
    assert "| `dpo.beta` | 0.1 |\n| `dpo.optimizer.learning_rate` | 0.0002 |\n| `model.seed` | 17 |" in card
    assert "**Champion, promoted by the stated rule.** It gained 40 points." in card
    assert "**Verdict of the evaluation: better.** It rose." in card
    assert "| replies within the rubric, DPO | 0.960 | 0.930 to 0.990 |" in card
    assert f"- dpo_checkpoint: `{'d' * 64}`" in card
    assert "evaluated on 3 held-out pairs" in card, "those of a golden set included"
    assert not (out / "pairs" / "openai").exists()


def test_a_model_nobody_promoted_says_so_on_its_card_and_among_its_facts(folders, tmp_path):
    outcome, out = released(folders, tmp_path, {"promoted": False, "reason": "Found 6 items."}, pair_formats=[])
    assert outcome.facts == {"is_adapter": False, "is_promoted": False, "checkpoint": "d" * 64}
    assert "**Not promoted: this model is not for use.** Found 6 items." in (out / "model" / "README.md").read_text()


def test_a_persons_reason_stands_on_the_card_and_cannot_act_there(folders, tmp_path):
    said = {"promoted": True, "mode": "manual", "reason": "reads <b>better</b>\n# Title ![x](http://x.example)"}
    _, out = released(folders, tmp_path, said, pair_formats=[])
    card = (out / "model" / "README.md").read_text()
    assert "**Champion, promoted by a person's decision.** reads &lt;b>better&lt;/b> # Title !&#91;x](http" in card


def test_the_hubs_own_reader_takes_the_model_card_with_each_figure_and_its_interval(folders, tmp_path):
    from huggingface_hub import ModelCard

    _, out = released(folders, tmp_path, name="Fernhill replies", model_license="apache-2.0", languages=["en", "de"])
    card = ModelCard.load(out / "model" / "README.md")
    assert (card.data.license, card.data.language, card.data.library_name) == (
        "apache-2.0",
        ["en", "de"],
        "transformers",
    )
    [figure] = card.data.eval_results
    assert (figure.metric_type, figure.metric_value, figure.dataset_revision) == ("dpo_passed", 0.96, "p" * 64)
    assert figure.metric_args == {"low": 0.93, "high": 0.99, "level": 0.95}
    assert card.text.lstrip().startswith("# Fernhill replies")


def test_the_pairs_are_a_dataset_of_their_own_unless_settings_say_otherwise(folders, tmp_path):
    import pyarrow.parquet as pq

    _, out = released(folders, tmp_path)
    assert pq.read_table(out / "dataset" / "data" / "held_out.parquet").to_pylist() == [ROWS[1]]
    assert (out / "dataset" / "croissant.json").exists()
    assert "| `held_out_share` | 0.1 |" in (out / "dataset" / "README.md").read_text()


def test_a_hub_model_is_the_cards_base_model(folders, tmp_path):
    from dpo_pipeline.release.cards import write_model_card

    same = {
        "digests": {"dpo_checkpoint": "d" * 64, "preference_pairs": "p" * 64},
        "training": {},
        "release": ReleaseSettings(),
    }
    counts, promoted = {"train": 1, "held_out": 1}, {"promoted": False, "reason": "not yet"}
    write_model_card(
        tmp_path / "card.md",
        base="meta-llama/Llama-3.1-8B",
        pair_counts=counts,
        evaluation=FACTS,
        promotion=promoted,
        **same,
    )
    assert "base_model: meta-llama/Llama-3.1-8B" in (tmp_path / "card.md").read_text()
