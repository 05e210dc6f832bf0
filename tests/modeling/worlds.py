"""Small things to train on: a tokenizer, models of several architectures, pairs, demonstrations, artifact folders."""

import filecmp
import functools
import random

import numpy as np
import pyarrow as pa
import torch
import transformers

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS
from dpo_pipeline.core.tables import MESSAGES, write_table
from dpo_pipeline.dpo.reference import compute_reference
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.dpo.train import train_dpo
from dpo_pipeline.modeling.base import train_tokenizer, without_dropout
from dpo_pipeline.modeling.batches import Comparison, Group
from dpo_pipeline.modeling.scoring import Pair
from dpo_pipeline.modeling.settings import (
    AdapterSettings,
    ComputeSettings,
    ModelSettings,
    OptimizerSettings,
    ScratchModel,
)
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.normalize import prompt_keys
from dpo_pipeline.preferences.schemas import PAIRS, SPLITS
from dpo_pipeline.sft.settings import SftSettings
from dpo_pipeline.sft.train import train_sft

COMPUTE = ComputeSettings(device="cpu", threads=1)
SCRATCH = ModelSettings(
    scratch=ScratchModel(vocabulary_size=320, hidden_size=32, intermediate_size=64, layer_count=2, head_count=2),
    max_length=128,
)
THINGS = ("lamp", "chair", "kettle", "phone", "router", "desk", "tent", "mirror")
TROUBLES = ("is broken", "came late", "is missing", "is too loud", "has the wrong colour")
NAMES = ("Ann", "Bob", "Cem", "Dia", "Eva")


class Notes:
    """A reporter that remembers."""

    def __init__(self):
        self.sentences, self.numbers = [], []

    def say(self, sentence):
        self.sentences.append(sentence)

    def metrics(self, step, values):
        self.numbers.append((step, dict(values)))

    def note(self, **facts):
        self.noted = {**getattr(self, "noted", {}), **facts}


def texts(count, seed=0):
    """Triples of prompt, friendly reply and rude reply; every prompt is another one."""
    chance = random.Random(seed)
    for number in range(count):
        thing, trouble, name = chance.choice(THINGS), chance.choice(TROUBLES), chance.choice(NAMES)
        prompt = [{"role": "user", "content": f"Order {seed}-{number}: my {thing} {trouble}. Help me! {name}"}]
        if chance.random() < 0.3:
            prompt = [
                {"role": "user", "content": "Hello?"},
                {"role": "assistant", "content": "How can I help you today?"},
                *prompt,
            ]
        rude = " ".join(["That is not our problem."] * chance.randint(1, 3))
        yield prompt, f"Dear {name}, I am sorry that your {thing} {trouble}. A new one is on its way.", rude


@functools.cache
def tokenizer():
    corpus = [m["content"] for prompt, *replies in texts(200) for m in (*prompt, *({"content": r} for r in replies))]
    return train_tokenizer(corpus, vocabulary_size=320)


def pairs_of(count, seed=0):
    return [Pair(f"pair {seed}-{n}", *triple) for n, triple in enumerate(texts(count, seed))]


def write_pairs(folder, triples, *, held_out_every=5, sft_allowed=True):
    """A `preference_pairs` artifact folder: pairs.parquet and splits.parquet; 0 holds nothing out."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = to_hex(prompt_keys(pa.array([t[0] for t in triples], MESSAGES))).to_pylist()
    rows = [
        {
            "pair_id": f"pair-{number}",
            "prompt_id": prompt_id,
            "cluster_id": prompt_id,
            "split": "held_out" if held_out_every and number % held_out_every == 0 else "train",
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "p_chosen": 0.75 + 0.25 * (number % 2),
            "sft_allowed": sft_allowed,
        }
        for number, ((prompt, chosen, rejected), prompt_id) in enumerate(zip(triples, ids, strict=True))
    ]
    write_table(folder / "pairs.parquet", filled(PAIRS, rows))
    write_table(folder / "splits.parquet", filled(SPLITS, rows))
    return folder


def write_demonstrations(folder, conversations):
    """A `demonstrations` artifact folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"demonstration_id": f"said-{n}", "messages": messages} for n, messages in enumerate(conversations)]
    write_table(folder / "demonstrations.parquet", filled(DEMONSTRATIONS, rows))
    return folder


def conversations(count, seed=1):
    """Demonstrations, two thirds of them friendly."""
    return [
        [*prompt, {"role": "assistant", "content": rude if number % 3 == 0 else good}]
        for number, (prompt, good, rude) in enumerate(texts(count, seed))
    ]


def filled(schema, rows):
    """Rows as a table of the schema; columns nobody gave get an empty value of their type."""
    empty = {pa.types.is_string: "", pa.types.is_list: [], pa.types.is_boolean: False}
    columns = []
    for field in schema:
        default = next((value for test, value in empty.items() if test(field.type)), 0)
        columns.append(pa.array([row.get(field.name, default) for row in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def random_groups(seed, sizes, vocabulary=60):
    """Groups of random tokens; sizes: per group the prompt's and the responses' lengths."""
    chance = np.random.default_rng(seed)
    return [
        Group(
            chance.integers(3, vocabulary, prompt).astype(np.int32),
            tuple(chance.integers(3, vocabulary, size).astype(np.int32) for size in responses),
            tuple(Comparison(0, loser, number * 10 + loser) for loser in range(1, len(responses))),
        )
        for number, (prompt, responses) in enumerate(sizes)
    ]


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
ARCHITECTURES = {
    "llama": ("LlamaConfig", {}),
    "llama, grouped queries, tied": ("LlamaConfig", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral, sliding window": ("MistralConfig", {"sliding_window": 5}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": 1}),
    "gemma2, caps and windows": (
        "Gemma2Config",
        {
            "sliding_window": 6,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 1.5,
            "query_pre_attn_scalar": 8,
        },
    ),
    "gemma3, windows": ("Gemma3TextConfig", {"sliding_window": 6, "num_hidden_layers": 7}),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
    "olmo2": ("Olmo2Config", {}),
    "granite": ("GraniteConfig", {"logits_scaling": 3.0, "residual_multiplier": 0.5}),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}),
    # TRL adds the router's load-balancing loss, we do not; without it the two agree.
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "router_aux_loss_coef": 0.0}),
    "deepseek v3, keys and values of two widths": (
        "DeepseekV3Config",
        {
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
}


def small_model(name="llama", seed=0, **changes):
    """A model of one of the ARCHITECTURES with random weights."""
    kind, own = ARCHITECTURES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**{**SMALL, **own, **changes})
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    config._attn_implementation = "eager" if capped else "sdpa"
    return without_dropout(transformers.AutoModelForCausalLM.from_config(config))


DPO = DpoSettings(
    batch_size=8, epochs=2, optimizer=OptimizerSettings(learning_rate=1e-3, warmup_share=0, schedule="linear")
)
SFT = SftSettings(batch_size=16, epochs=1, optimizer=OptimizerSettings(learning_rate=1e-2))
ADAPTED = SCRATCH.model_copy(update={"adapter": AdapterSettings(rank=4, alpha=8)})


class World:
    """Demonstrations, pairs, an SFT checkpoint and its reference table."""

    def __init__(self, root, model):
        self.root, self.model = root, model
        self.pairs = write_pairs(root / "pairs", list(texts(30)))
        demonstrations = write_demonstrations(root / "demonstrations", conversations(40))
        self.checkpoint = self.folder("sft")
        train_sft(
            [demonstrations], self.pairs, self.checkpoint, work=root / "work sft", sft=SFT, model=model,
            compute=COMPUTE, reporter=Notes(),
        )  # fmt: skip
        self.reference = self.folder("reference")
        self.outcome = self.refer(self.reference)

    def folder(self, name):
        path = self.root / name
        path.mkdir()
        return path

    def refer(self, out, known=(), **changes):
        return compute_reference(
            changes.get("pairs", self.pairs), self.checkpoint, out, known=known, model=self.model, compute=COMPUTE,
            reporter=Notes(),
        )  # fmt: skip

    def train(self, name, *, dpo=DPO, compute=COMPUTE, reporter=None, work=None, **changes):
        out = self.folder(name)
        outcome = train_dpo(
            changes.get("pairs", self.pairs), changes.get("reference", self.reference), self.checkpoint, out,
            work=work or self.root / f"work {name}", dpo=dpo, model=self.model, compute=compute,
            reporter=reporter or Notes(),
        )  # fmt: skip
        return out, outcome


def same_bytes(one, other):
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    return [str(n) for n in names if not filecmp.cmp(one / n, other / n, shallow=False)]


class Stop(Notes):
    """A reporter that pulls the plug after some steps."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def metrics(self, step, values):
        super().metrics(step, values)
        if step == self.after:
            raise KeyboardInterrupt
