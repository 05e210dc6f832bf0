"""What a profile's two trainings need on this machine: memory, disk, steps and about how long; all faults together.

No weights are loaded.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import ArtifactError, CapacityError
from dpo_pipeline.core.home import Home
from dpo_pipeline.modeling.base import where_is
from dpo_pipeline.modeling.device import choose_device, require_bitsandbytes
from dpo_pipeline.modeling.duration import flops_per_token, products_per_second
from dpo_pipeline.modeling.preflight import Plan, plan_training
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.profiles import Profile

CHARACTERS_PER_TOKEN = 3.5


@dataclass(frozen=True, slots=True)
class Examples:
    """How much a stage learns from: how many examples, how many tokens all of them take, and how that is known."""

    count: int
    tokens: float
    source: str


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to print, and what stands in the way."""

    text: str
    faults: tuple[str, ...]


def plan_profile(
    profile: Profile, home: Home, *, pairs: int | None = None, demonstrations: int | None = None
) -> ProfilePlan:
    """The plan of both trainings of a profile.

    Args:
        profile: The settings.
        home: Its tables say how much there is to learn, its disk takes the checkpoints.
        pairs: Pairs to plan for, instead of the home's.
        demonstrations: Demonstrations to plan for, instead of the home's.
    """
    model, compute, lines, faults = profile.model, profile.compute, list[str](), list[str]()
    kinds = {"SFT": profile.sft.optimizer.kind, "DPO": profile.dpo.optimizer.kind}
    try:
        plans = {kind: plan_training(model, compute, optimizer=kind, folder=home.root) for kind in kinds.values()}
        for kind, plan in plans.items():
            stages = " and ".join(stage for stage, its_kind in kinds.items() if its_kind == kind)
            lines += [f"{stages} with {kind}:", plan.as_text()]
            faults += _shortages(plan)
        learned = {
            "SFT": _demonstrations(home, demonstrations, model.max_length),
            "DPO": _pairs(home, pairs, model.max_length),
        }
        lines += _schedules(profile, learned, next(iter(plans.values())).parameters)
    except CapacityError as error:
        faults.append(str(error))
    faults += [*_missing_packages(profile), *_other_tokenizer(home, model)]
    faults = list(dict.fromkeys(faults))
    if faults:
        lines += ["What stands in the way:", *(f"  - {fault}" for fault in faults)]
    return ProfilePlan("\n".join(lines), tuple(faults))


def _shortages(plan: Plan) -> Iterator[str]:
    if plan.memory_free is None:
        yield plan.device
    elif plan.memory_bytes > plan.memory_free:
        yield (
            "memory: lower compute.batch_tokens or model.max_length, switch on compute.gradient_checkpointing, or "
            "train an adapter (model.adapter)"
        )
    if plan.disk_bytes > plan.disk_free:
        yield "disk: free some space, or train an adapter (model.adapter), whose checkpoints are small"


def _missing_packages(profile: Profile) -> Iterator[str]:
    wanted = {f"sft.optimizer.kind {profile.sft.optimizer.kind}", f"dpo.optimizer.kind {profile.dpo.optimizer.kind}"}
    wanted = {setting for setting in wanted if not setting.endswith(" adamw")}
    if profile.model.adapter is not None and profile.model.adapter.quantize_base:
        wanted.add("model.adapter.quantize_base")
    for setting in sorted(wanted):
        try:
            require_bitsandbytes(setting)
        except CapacityError as error:
            yield str(error)


def _other_tokenizer(home: Home, model: ModelSettings) -> Iterator[str]:
    """A base model made from nothing has no tokenizer before its first training, and nothing to compare."""
    if model.scratch is not None:
        return
    name, revision = where_is(model)
    if model.path is not None:
        base = Path(name) / "tokenizer.json"
    else:
        from huggingface_hub import try_to_load_from_cache

        base = Path(str(try_to_load_from_cache(name, "tokenizer.json", revision=revision)))
    try:
        checkpoint = home.latest("sft_checkpoint").path / "model" / "tokenizer.json"
    except ArtifactError:
        return
    if base.is_file() and checkpoint.is_file():
        there = _vocabulary(checkpoint)
        changed = sum(there.get(token) != number for token, number in _vocabulary(base).items())
        if changed:
            yield (
                f"{changed:,} tokens of {name} have other numbers in this home's SFT checkpoint: it was made from "
                "another base. Materialize sft_checkpoint under this profile before DPO"
            )


def _vocabulary(path: Path) -> dict[str, int]:
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, added = tokenizer["model"]["vocab"], tokenizer.get("added_tokens", [])
    pairs = (
        vocabulary.items() if isinstance(vocabulary, dict) else ((token, n) for n, (token, _) in enumerate(vocabulary))
    )
    return {**dict(pairs), **{token["content"]: token["id"] for token in added}}


def _schedules(profile: Profile, learned: dict[str, Examples | None], parameters: int) -> Iterator[str]:
    model, compute = profile.model, profile.compute
    try:
        budget, rate = choose_device(compute).batch_tokens, products_per_second(model, compute)
        yield f"Products of this model's shape run at {rate / 1e9:,.0f} GFLOP/s here, measured just now."
    except CapacityError:
        budget, rate = compute.batch_tokens, None
    for stage, unit, settings in (("SFT", "demonstrations", profile.sft), ("DPO", "pairs", profile.dpo)):
        examples = learned[stage]
        if examples is None:
            yield f"{stage}: this home has no {unit} yet; --{unit} N says how many to plan for."
            continue
        steps = math.ceil(settings.epochs * math.ceil(examples.count / settings.batch_size))
        tokens = examples.tokens / max(examples.count, 1) * settings.batch_size
        passes = math.ceil(tokens / budget)
        flops = flops_per_token(model, compute, parameters) * examples.tokens * settings.epochs
        lasts = "" if rate is None else f"; about {_duration(flops / rate)} at that rate, attention and data aside"
        yield (
            f"{stage}: {examples.count:,} {unit} ({examples.source}), {settings.batch_size} a step, "
            f"{settings.epochs:g} epochs: about {steps:,} steps of {tokens:,.0f} tokens, "
            f"in {passes} forward passes of at most {budget:,}{lasts}."
        )


def _pairs(home: Home, count: int | None, max_length: int) -> Examples | None:
    """Training pairs: the prompt once for all its pairs, and both responses."""
    if count is not None:
        return _supposed(count, max_length)
    try:
        table = pq.read_table(home.latest("preference_pairs").path / "pairs.parquet")
    except ArtifactError:
        return None
    table = table.filter(pc.field("split") == "train")
    responses = sum(len(text) for name in ("chosen", "rejected") for text in table[name].to_pylist())
    texts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    prompts = sum(len(turn["content"]) for prompt in texts.values() for turn in prompt)
    return _counted(table.num_rows, prompts + responses)


def _demonstrations(home: Home, count: int | None, max_length: int) -> Examples | None:
    if count is not None:
        return _supposed(count, max_length)
    rows = characters = 0
    for drop in home.partitions("demonstrations"):
        table = pq.read_table(home.latest("demonstrations", drop).path / "demonstrations.parquet", columns=["messages"])
        rows += table.num_rows
        characters += sum(len(turn["content"]) for turns in table["messages"].to_pylist() for turn in turns)
    return _counted(rows, characters) if rows else None


def _supposed(count: int, max_length: int) -> Examples:
    return Examples(count, count * max_length / 2, f"supposing {max_length // 2:,} tokens each, half of max_length")


def _counted(count: int, characters: float) -> Examples:
    return Examples(
        count, characters / CHARACTERS_PER_TOKEN, f"this home's, at {CHARACTERS_PER_TOKEN} characters a token"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3600:,.1f} h"
