"""Replies: those of transformers' own generate, whoever else is in the batch; reproducible; cut and ended as said."""

import pytest
import torch
from worlds import Notes, small_model, texts, tokenizer

from dpo_pipeline.modeling.generation import generate_replies
from dpo_pipeline.modeling.template import encode_prompts, end_of_turn_ids

PROMPTS = [prompt for prompt, *_ in texts(7)]


@pytest.fixture(scope="module")
def model():
    return small_model("llama, grouped queries, tied", vocab_size=len(tokenizer()), max_position_embeddings=256).eval()


def replies(model, *, prompts=PROMPTS, temperature=0.0, seed=1, batch_size=3, tokens=12):
    made = generated(model, prompts=prompts, temperature=temperature, seed=seed, batch_size=batch_size, tokens=tokens)
    return [each.text for each in made]


def generated(model, *, prompts=PROMPTS, temperature=0.0, seed=1, batch_size=3, tokens=12):
    return generate_replies(
        model, tokenizer(), prompts, max_new_tokens=tokens, temperature=temperature, seed=seed,
        batch_size=batch_size, reporter=Notes(),
    )  # fmt: skip


def test_greedy_replies_are_transformers_own(model):
    ends = sorted(end_of_turn_ids(tokenizer()))
    expected = []
    for tokens in encode_prompts(tokenizer(), PROMPTS, max_length=200):
        ids = torch.tensor([tokens.tolist()])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=ends,
            pad_token_id=0,
        )  # fmt: skip
        expected.append(tokenizer().decode(made[0, len(tokens) :], skip_special_tokens=True))
    assert replies(model) == expected
    assert replies(model, batch_size=1) == expected
    assert replies(model, batch_size=7) == expected


def test_sampling_is_a_function_of_the_seed(model):
    one, same, other = (replies(model, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_a_reply_ends_at_the_end_of_turn_and_does_not_show_it(monkeypatch):
    """A model that always says `x` and then ends its turn."""
    x, end = tokenizer()("x", add_special_tokens=False)["input_ids"][0], tokenizer().eos_token_id

    class Speaker(torch.nn.Module):
        device = torch.device("cpu")
        config = type("", (), {"max_position_embeddings": 64})

        def forward(self, input_ids, past_key_values=None, **_):
            logits = torch.zeros(len(input_ids), 1, len(tokenizer()))
            said = input_ids[:, -1] == x
            logits[:, 0, x], logits[:, 0, end] = (~said).float(), said.float()
            return type("", (), {"logits": logits, "past_key_values": Cache()})

    class Cache:
        def batch_select_indices(self, rows):
            pass

    assert generated(Speaker()) == [("x", 1, True)] * len(PROMPTS)
    assert generated(Speaker(), tokens=1) == [("x", 1, False)] * len(PROMPTS)


def test_no_prompts_no_replies(model):
    assert replies(model, prompts=[]) == []


def test_a_prompt_longer_than_the_models_context_is_cut_to_leave_room(model):
    long = [[{"role": "user", "content": "word " * 500}]]
    assert isinstance(replies(model, prompts=long)[0], str)
