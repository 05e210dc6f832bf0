"""Groups, steps, micro-batches, packing: laws."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import random_groups

from dpo_pipeline.modeling.batches import cut_by_tokens, digest_of_groups, pack, plan_steps

SIZES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=4)), min_size=1, max_size=12
)
WEIGHTS = st.lists(st.integers(1, 6), min_size=1, max_size=40)


@given(WEIGHTS, st.integers(1, 10), st.integers(1, 3), st.integers(0, 9))
def test_each_epoch_has_every_group_once_and_steps_are_full_but_not_overfull(weights, batch_size, epochs, seed):
    """Law of `plan_steps`."""
    steps = plan_steps(weights, batch_size=batch_size, epochs=epochs, seed=seed)
    order = [index for step in steps for index in step]
    for epoch in range(epochs):
        assert sorted(order[epoch * len(weights) : (epoch + 1) * len(weights)]) == list(range(len(weights)))
    assert all(len(step) == 1 or sum(weights[i] for i in step) <= batch_size for step in steps)


@given(WEIGHTS, st.integers(0, 9))
def test_the_order_is_a_function_of_the_seed_and_more_epochs_only_append(weights, seed):
    one, two = (plan_steps(weights, batch_size=4, epochs=epochs, seed=seed) for epochs in (1, 2))
    assert two[: len(one)] == one
    assert plan_steps(weights, batch_size=4, epochs=1, seed=seed) == one


def test_a_fraction_of_an_epoch_ends_it_early():
    assert len(plan_steps([1] * 100, batch_size=10, epochs=2.5, seed=1)) == 25
    assert len(plan_steps([1] * 100, batch_size=10, epochs=0.01, seed=1)) == 1


@given(SIZES, st.integers(1, 60))
def test_micro_batches_hold_every_group_once_within_the_budget(sizes, batch_tokens):
    """Law of `cut_by_tokens`."""
    groups = random_groups(0, sizes)
    batches = cut_by_tokens(groups, batch_tokens=batch_tokens)
    assert sorted(id(g) for batch in batches for g in batch) == sorted(map(id, groups))
    assert all(len(batch) == 1 or sum(g.tokens for g in batch) <= batch_tokens for batch in batches)
    lengths = [g.tokens for batch in batches for g in batch]
    assert lengths == sorted(lengths), "groups of like lengths together"


@given(SIZES)
def test_packing_can_be_read_back(sizes):
    """Law of `pack`: every token, its position, and the position that predicts it are where the fields say."""
    groups = random_groups(1, sizes)
    packed = pack(groups)
    ids, positions = packed.input_ids[0], packed.position_ids[0]
    assert packed.tokens == sum(g.tokens for g in groups)
    responses = [response for g in groups for response in g.responses]
    prompts = [g.prompt for g in groups for _ in g.responses]
    for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        mine = packed.owners == number
        assert packed.targets[mine].tolist() == response.tolist()
        assert packed.lengths[number] == len(response)
        before = [prompt[-1], *response[:-1]]
        assert ids[packed.predictors[mine]].tolist() == before
        assert positions[packed.predictors[mine]].tolist() == list(
            range(len(prompt) - 1, len(prompt) + len(response) - 1)
        )
    assert torch.equal(packed.needed, packed.predictors.unique())
    pairs = [c for g in groups for c in g.comparisons]
    assert packed.rows == tuple(c.row for c in pairs)


def test_the_digest_sees_tokens_boundaries_and_comparisons():
    [group] = random_groups(2, [(4, (3, 3))])
    moved = type(group)(group.prompt[:-1], (np.append(group.prompt[-1:], group.responses[0]), group.responses[1]))
    turned = type(group)(group.prompt, group.responses, tuple(c._replace(winner=1, loser=0) for c in group.comparisons))
    assert len({digest_of_groups([g]) for g in (group, moved, turned)}) == 3
