"""The reference table: equal to a live reference, reused row by row, only new pairs computed."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from worlds import ADAPTED, COMPUTE, Notes, World, pairs_of, texts, write_pairs

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.dpo.pairs import iterate_pairs, pair_weights
from dpo_pipeline.dpo.reference import TABLE, compute_reference
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.scoring import Pair, score_pairs
from dpo_pipeline.modeling.settings import Precision


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("reference"), ADAPTED)


def rows(folder):
    return pq.read_table(folder / TABLE).to_pylist()


def test_the_table_is_what_the_live_reference_thinks(world):
    model, tokenizer = load_policy(world.checkpoint / "model", device="cpu")
    texts_of = [Pair(*(row[name] for name in Pair._fields)) for block in iterate_pairs(world.pairs) for row in block]
    live = score_pairs(model, tokenizer, texts_of, model_settings=world.model, compute=COMPUTE, reporter=Notes())
    table = rows(world.reference)
    assert [row["pair_id"] for row in table] == [score.pair_id for score in live.rows]
    for row, score in zip(table, live.rows, strict=True):
        assert (row["chosen_tokens"], row["rejected_tokens"]) == (score.chosen_tokens, score.rejected_tokens)
        assert row["chosen_logp"] == pytest.approx(score.chosen_logp, abs=1e-4)
        assert row["rejected_logp"] == pytest.approx(score.rejected_logp, abs=1e-4)
    assert {row["split"] for row in table} == {"train", "held_out"}


def test_with_an_untrained_adapter_the_base_is_the_reference(world):
    """The adapter switched off is the base: the same numbers from both."""
    from dpo_pipeline.modeling.device import choose_device
    from dpo_pipeline.modeling.scoring import encode_pairs, score_encoded

    model, tokenizer = load_policy(world.checkpoint / "model", device="cpu")
    encoded = encode_pairs(tokenizer, pairs_of(5), max_length=128).pairs
    device = choose_device(COMPUTE)
    with model.disable_adapter():
        off = score_encoded(model, encoded, device=device, reporter=Notes())
    base = score_encoded(model.unload(), encoded, device=device, reporter=Notes())
    assert off.tolist() == base.tolist()
    assert off.shape == (5, 2)
    assert (off < 0).all()


def test_only_new_pairs_are_computed(world):
    more = write_pairs(world.root / "more", [*texts(30), *texts(4, seed=77)])
    out = world.folder("more reference")
    outcome = world.refer(out, known=[world.reference], pairs=more)
    assert (outcome.remarks["reused"], outcome.remarks["scored"]) == (30, 4)
    old, new = rows(world.reference), rows(out)
    assert [row["key"] for row in new[:30]] == [row["key"] for row in old]
    assert [row["chosen_logp"] for row in new[:30]] == [row["chosen_logp"] for row in old], "taken over to the bit"


def test_other_weights_length_or_precision_share_no_row(world):
    out = world.folder("shorter reference")
    shorter = world.model.model_copy(update={"max_length": 64})
    outcome = compute_reference(
        world.pairs, world.checkpoint, out, known=[world.reference], model=shorter, compute=COMPUTE, reporter=Notes()
    )
    cut = outcome.counts["prompts_cut"]
    assert cut > 0
    assert outcome.remarks["reused"] == 30 - cut - outcome.books.rejected_count, "only pairs that were not cut"
    bf16 = COMPUTE.model_copy(update={"precision": Precision.BF16})
    out = world.folder("bf16 reference")
    outcome = compute_reference(
        world.pairs, world.checkpoint, out, known=[world.reference], model=world.model, compute=bf16, reporter=Notes()
    )
    assert outcome.remarks["reused"] == 0


def test_a_known_table_that_cannot_be_read_is_named(world, tmp_path):
    (tmp_path / TABLE).write_bytes(b"PAR1 not really")
    with pytest.raises(ArtifactError, match="cannot be read"):
        world.refer(world.folder("unreadable"), known=[tmp_path])


def test_agreement_becomes_weight():
    shares = np.array([1.0, 0.75, 0.5])
    assert pair_weights(shares, use_agreement=True).tolist() == [1.0, 0.5, 0.0]
    assert pair_weights(shares, use_agreement=False).tolist() == [1.0, 1.0, 1.0]
