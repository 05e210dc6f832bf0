"""The audit finds a held-out prompt that SFT learned, in the model before a warm start too."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.demonstrated import check_demonstrated
from dpo_pipeline.preferences.golden import held_out_rows
from dpo_pipeline.sft.settings import SftSettings


@pytest.fixture
def train(built, published):
    """Publishes a dpo_checkpoint on today's pairs, its SFT on this table of demonstrations, begun from a champion."""

    def made(kind, *parents, settings=None, number=0):
        with built.store.staging() as folder:
            (folder / "file.txt").write_text(f"{kind} {number}")
            return published(built, Recipe(kind, "1", settings or {}, parents), folder, Outcome())

    def train(demonstrations, *, champion=None, pairs=None):
        pairs = pairs or built.latest("preference_pairs")
        parents = [
            Parent("demonstrations/a", "demonstrations", demonstrations.digest),
            Parent("preference_pairs", "preference_pairs", pairs.digest),
        ]
        if champion:
            parents.append(Parent("champion", "dpo_checkpoint", champion.digest))
        settings = {"sft": SftSettings(held_out_share=0).model_dump(mode="json"), "model": {"seed": 1}}
        sft = made("sft_checkpoint", *parents, settings=settings)
        return made("dpo_checkpoint", parents[1], Parent("sft_checkpoint", "sft_checkpoint", sft.digest))

    return train


def forget_what_was_held_out(built, published):
    """The pair table of an earlier day, on which nothing was held out, so that SFT left out nothing."""
    true = built.latest("preference_pairs")
    recipe = Recipe("preference_pairs", "0", true.manifest["settings"], true.parents)
    with built.store.staging() as folder:
        for file in ("pairs.parquet", "splits.parquet"):
            table = pq.read_table(true.path / file)
            at = table.column_names.index("split")
            side = pa.array(["train"] * len(table), table["split"].type)
            write_table(folder / file, table.set_column(at, table.schema.field("split"), side))
        return built.store.publish(folder, recipe, Outcome())


def taught(built, published, words):
    """A drop of demonstrations that asks these prompts."""
    drop = built.partitions("demonstrations")[0]
    true = built.latest("demonstrations", drop)
    with built.store.staging() as folder:
        table = pq.read_table(true.path / "demonstrations.parquet")
        row = table.slice(0, 1).to_pylist()[0]
        rows = [{**row, "messages": [*prompt, {"role": "assistant", "content": "Yes."}]} for prompt in words]
        write_table(folder / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=table.schema))
        recipe = Recipe("demonstrations", "1", true.manifest["settings"], true.parents)
        return published(built, recipe, folder, Outcome(), drop)


def test_a_demonstration_held_out_since_is_a_fault_and_a_near_copy_a_note(built, published, train):
    held_out = held_out_rows(built.latest("preference_pairs").path, ["prompt_id", "prompt"]).to_pylist()[0]
    *before, last = held_out["prompt"]
    copy = [*before, {**last, "content": last["content"] + " Thanks."}]
    nothing_held_out = forget_what_was_held_out(built, published)

    def checked(checkpoint):
        return check_demonstrated(built, ancestors(chain_of(built, f"dpo_checkpoint/{checkpoint.digest}")))

    sound = taught(built, published, [[{"role": "user", "content": "What do you sell?"}]])
    assert checked(train(sound)).outcome == "ok"
    old = train(taught(built, published, [held_out["prompt"]]), pairs=nothing_held_out)
    begun = train(sound, champion=old)
    [fault] = checked(begun).faults
    assert f"learned 1 prompts as demonstrations that {built.latest('preference_pairs').path} holds out" in fault
    assert held_out["prompt_id"] in fault
    assert f"behind dpo_checkpoint {begun.digest[:12]}" in fault

    nearly = checked(train(sound, champion=train(taught(built, published, [copy]), pairs=nothing_held_out)))
    assert nearly.outcome == "ok"
    [note] = nearly.notes
    assert "learned near copies (from 0.5 on) of 1 prompts" in note
    assert held_out["prompt_id"] in note
