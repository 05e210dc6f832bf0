"""pairs.parquet as users open it: pandas, datasets, DuckDB and TRL read the file itself."""

import pytest
from preference_worlds import judgment

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How are you today, my friend?"}]


@pytest.fixture
def pairs(world):
    rows = [
        judgment(f"Tell me about lamp number {number} of the catalogue.", f"It shines, {number}.", f"No. {number}", "a")
        for number in range(40)
    ]
    out, _ = world.build(world.drop("may", [*rows, judgment(MESSAGES, "Well, thank you.", "What do you want?", "a")]))
    return out


def the_conversation(rows):
    return next(row for row in rows if len(row["prompt"]) == 2)


def test_pandas(pairs):
    import pandas as pd

    table = pd.read_parquet(pairs / "pairs.parquet", dtype_backend="pyarrow")
    row = the_conversation(table.to_dict("records"))
    assert (row["prompt"], row["chosen"]) == (MESSAGES, "Well, thank you.")
    assert table["judgment_count"].sum() == 41


def test_datasets(pairs, tmp_path):
    import datasets

    table = datasets.load_dataset(
        "parquet", data_files=str(pairs / "pairs.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert the_conversation(table)["prompt"] == MESSAGES
    assert table.features["p_chosen"].dtype == "float32"


def test_duckdb(pairs):
    import duckdb

    found = duckdb.sql(
        f"select count(*), sum(judgment_count) from '{pairs / 'pairs.parquet'}' where split in ('train', 'held_out')"
    )
    assert found.fetchall() == [(41, 41)]
    asked = duckdb.sql(f"select prompt[-1].content from '{pairs / 'pairs.parquet'}' where len(prompt) = 2")
    assert asked.fetchall() == [(MESSAGES[-1]["content"],)]


@pytest.mark.filterwarnings("ignore")  # TRL's, datasets' and transformers' own
def test_trl_trains_on_it(pairs, tmp_path):
    import trl
    from transformers import LlamaConfig, LlamaForCausalLM

    from dpo_pipeline.modeling.base import train_tokenizer
    from dpo_pipeline.preferences.loading import as_trl

    rows = as_trl(pairs)
    held_out = as_trl(pairs, split="held_out")
    assert len(rows) + len(held_out) == 41
    row = the_conversation([*rows, *held_out])
    assert row == {
        "prompt": MESSAGES,
        "chosen": [{"role": "assistant", "content": "Well, thank you."}],
        "rejected": [{"role": "assistant", "content": "What do you want?"}],
    }
    tokenizer = train_tokenizer((text[0]["content"] for text in rows["chosen"]), vocabulary_size=320)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=2,
        per_device_train_batch_size=4,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape))
    model.save_pretrained(tmp_path / "model")  # TRL reads its reference from there
    trainer = trl.DPOTrainer(
        LlamaForCausalLM.from_pretrained(tmp_path / "model"),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[0] == pytest.approx(0.693147, abs=1e-4)
