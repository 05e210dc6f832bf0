"""What SFT may learn from: never a held-out prompt, never a forbidden source unless told to and then counted."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import conversations, texts, write_demonstrations, write_pairs

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.personal_data import says_redacted
from dpo_pipeline.preferences.schemas import PAIRS, SPLITS
from dpo_pipeline.sft.demonstrations import read_demonstrations
from dpo_pipeline.sft.settings import SftSettings


def filled(schema, **values):
    """A row of a table: what is given, and plain values for the rest."""
    plain = {"string": "", "int64": 1, "bool": True, "float": 1.0, "int32": 1}
    row = {
        f.name: None if f.nullable else plain.get(str(f.type), [] if pa.types.is_list(f.type) else "") for f in schema
    }
    return row | values


def conversation(prompt, reply):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def prompt_id(prompt):
    from dpo_pipeline.core.tables import MESSAGES

    return to_hex(prompt_keys(pa.array([[{"role": "user", "content": prompt}]], MESSAGES))).to_pylist()[0]


@pytest.fixture
def tables(tmp_path):
    """One drop of demonstrations, and pairs of a source that forbids SFT; the prompt `held out` is held out."""
    drop, pairs = tmp_path / "drop", tmp_path / "pairs"
    drop.mkdir()
    pairs.mkdir()
    said = [("a", "one"), ("a", "one"), ("b", "two"), ("held out", "three")]
    rows = [filled(DEMONSTRATIONS, messages=conversation(*turn)) for turn in said]
    write_table(drop / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=DEMONSTRATIONS))
    pair = {"prompt": [{"role": "user", "content": "c"}], "chosen": "four", "split": "train", "sft_allowed": False}
    write_table(pairs / "pairs.parquet", pa.Table.from_pylist([filled(PAIRS, **pair)], schema=PAIRS))
    split = filled(SPLITS, prompt_id=prompt_id("held out"), split="held_out")
    write_table(pairs / "splits.parquet", pa.Table.from_pylist([split], schema=SPLITS))
    return drop, pairs


def read(tables, **settings):
    drop, pairs = tables
    return read_demonstrations([drop], pairs, settings=SftSettings(held_out_share=0.0, **settings), seed=1)


def replies(found):
    return [messages[-1]["content"] for messages in found.train]


def test_repeats_are_merged_and_held_out_prompts_left_out(tables):
    found = read(tables)
    assert replies(found) == ["one", "two"]
    assert found.books.as_dict() == {
        "in": 4,
        "kept": {"held_out": 0, "train": 2},
        "merged": 1,
        "rejected": {"prompt_held_out": 1},
    }


def test_a_source_that_forbids_sft_is_left_out_with_its_reason(tables):
    found = read(tables, chosen_as_demonstrations=True)
    assert replies(found) == ["one", "two"]
    assert found.books.rejected["sft_not_permitted"] == 1
    assert found.against_permission == 0


def test_a_smoke_run_may_override_it_and_is_counted(tables):
    found = read(tables, chosen_as_demonstrations=True, override_sft_permission=True)
    assert replies(found) == ["one", "two", "four"]
    assert found.against_permission == 1


def test_a_near_copy_of_a_held_out_prompt_is_left_out(tmp_path):
    asked = "My lamp arrived broken yesterday and nobody at the shop answers the phone, please send me a new one"
    pairs = write_pairs(tmp_path / "pairs", [([{"role": "user", "content": asked}], "yes", "no")], held_out_every=1)
    said = [asked.upper(), asked.replace("lamp", "tent"), "Where is my parcel? It has been three weeks."]
    drop = write_demonstrations(tmp_path / "drop", [conversation(text, "Sorry.") for text in said])
    found = read_demonstrations([drop], pairs, settings=SftSettings(held_out_share=0.0), seed=1)
    assert found.books.rejected == {"prompt_held_out": 1, "prompt_near_held_out": 1}
    assert [messages[0]["content"] for messages in found.train] == [said[2]]


def test_a_prompt_has_one_use_and_more_conversations_move_none(tmp_path):
    """Laws of `read_demonstrations`."""
    pairs = write_pairs(tmp_path / "pairs", list(texts(5, seed=8)))
    settings = SftSettings(held_out_share=0.3)
    few, many = (
        read_demonstrations(
            [write_demonstrations(tmp_path / str(count), conversations(count))], pairs, settings=settings, seed=1
        )
        for count in (40, 80)
    )
    uses = [{str(c[:-1]) for c in found} for found in (many.train, many.held_out)]
    assert uses[0].isdisjoint(uses[1])
    assert len(many.held_out) > 10
    assert many.train[: len(few.train)] == [*few.train]
    assert many.held_out[: len(few.held_out)] == [*few.held_out]


HELD_OUT = "write to [EMAIL] about the late parcel with the blue chair in it please"


@pytest.fixture
def redacted(tmp_path):
    """Pairs whose rules take out addresses, one held out, and demonstrations that hold addresses."""
    drop, pairs = tmp_path / "drop", tmp_path / "pairs"
    drop.mkdir()
    pairs.mkdir()
    said = [
        (HELD_OUT.replace("[EMAIL]", "ann@shop.example"), "done"),
        ("who is bob@shop.example", "ask eve@shop.example"),
    ]
    rows = [filled(DEMONSTRATIONS, messages=conversation(*turn)) for turn in said]
    write_table(drop / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=DEMONSTRATIONS))
    prompt = [{"role": "user", "content": HELD_OUT}]
    pair = {"prompt": prompt, "prompt_id": prompt_id("as it was delivered"), "chosen": "x", "split": "held_out"}
    schema = PAIRS.with_metadata({**PAIRS.metadata, **says_redacted(frozenset({"email"}))})
    write_table(pairs / "pairs.parquet", pa.Table.from_pylist([filled(PAIRS, **pair)], schema=schema))
    write_table(pairs / "splits.parquet", SPLITS.empty_table())
    return drop, pairs


def test_what_the_pairs_rules_take_out_is_in_no_demonstration_and_hides_no_held_out_prompt(redacted):
    found = read(redacted)
    assert list(found.train) == [conversation("who is [EMAIL]", "ask [EMAIL]")]
    assert found.books.rejected == {"prompt_near_held_out": 1}


def test_without_such_rules_demonstrations_are_learned_as_they_were_delivered(redacted):
    table = pq.read_table(redacted[1] / "pairs.parquet")
    write_table(redacted[1] / "pairs.parquet", table.cast(PAIRS))
    assert [messages[0]["content"] for messages in read(redacted).train][-1] == "who is bob@shop.example"


def test_prompts_that_differ_in_an_address_only_are_one_and_have_one_use(redacted):
    """As they are learned they are the same words, so one of them must not measure what the other one taught."""
    drop, pairs = redacted
    said = [
        conversation(f"question {number} from {who}@shop.example", reply)
        for number in range(40)
        for who, reply in (("ann", "yes"), ("bob", "no"), ("cem", "yes"))
    ]
    rows = [filled(DEMONSTRATIONS, messages=messages) for messages in said]
    write_table(drop / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=DEMONSTRATIONS))
    found = read_demonstrations([drop], pairs, settings=SftSettings(held_out_share=0.5), seed=1)
    train, held_out = ({messages[0]["content"] for messages in use} for use in (found.train, found.held_out))
    assert train | held_out == {f"question {number} from [EMAIL]" for number in range(40)}
    assert train & held_out == set()
    assert found.books.merged == 40, "the same prompt and reply, delivered by two"
    assert found.books.kept == {"train": 2 * len(train), "held_out": 2 * len(held_out)}


@pytest.mark.parametrize("at", ["\uff20", "\u200b@", "@\u00ad", "\ufe6b"])
def test_an_address_in_another_spelling_is_taken_out_and_hides_no_held_out_prompt(redacted, at):
    drop, pairs = redacted
    said = [
        (HELD_OUT.replace("[EMAIL]", f"ann{at}shop.example"), "done"),
        (f"who is “bob{at}shop.example”", f"ask\u00a0eve{at}shop.example"),
    ]
    rows = [filled(DEMONSTRATIONS, messages=conversation(*turn)) for turn in said]
    write_table(drop / "demonstrations.parquet", pa.Table.from_pylist(rows, schema=DEMONSTRATIONS))
    found = read((drop, pairs))
    assert list(found.train) == [conversation("who is “[EMAIL]”", "ask\u00a0[EMAIL]")]
    assert found.books.rejected == {"prompt_near_held_out": 1}
