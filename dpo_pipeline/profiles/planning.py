"""What a profile's two trainings need on this machine: memory, disk, steps and about how long; all faults together.

No weights are loaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dpo_pipeline.core.errors import ArtifactError, CapacityError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.base import where_is
from dpo_pipeline.modeling.device import choose_device, require_bitsandbytes
from dpo_pipeline.modeling.duration import measure_steps
from dpo_pipeline.modeling.preflight import Plan, plan_training
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.modeling.shapes import base_file
from dpo_pipeline.profiles import Profile
from dpo_pipeline.profiles.belonging import refuse_other_profile
from dpo_pipeline.profiles.learning import Learned, Learning, supposed


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to print, and what stands in the way."""

    text: str
    faults: tuple[str, ...]


def plan_profile(
    profile: Profile, home: Home, *, name: str, pairs: int | None = None, demonstrations: int | None = None
) -> ProfilePlan:
    """The plan of both trainings of a profile.

    Args:
        profile: The settings.
        home: Its tables say how much there is to learn, its disk takes the checkpoints.
        name: The profile's name or path.
        pairs: Pairs to plan for, instead of the home's.
        demonstrations: Demonstrations to plan for, instead of the home's.
    """
    model, compute, lines, faults = profile.model, profile.compute, list[str](), list[str]()
    kinds = {"SFT": profile.sft.optimizer.kind, "DPO": profile.dpo.optimizer.kind}
    try:
        patience = max(profile.sft.patience, profile.dpo.patience)
        plans = {
            kind: plan_training(model, compute, optimizer=kind, patience=patience, folder=home.root)
            for kind in kinds.values()
        }
        for kind, plan in plans.items():
            stages = " and ".join(stage for stage, its_kind in kinds.items() if its_kind == kind)
            lines += [f"{stages} with {kind}:", plan.as_text()]
            faults += _shortages(plan)
        learning = Learning(home, profile)
        learned = {
            "SFT": learning.by_sft()
            if demonstrations is None
            else supposed(model, demonstrations, responses=1, batch_size=profile.sft.batch_size),
            "DPO": learning.by_dpo()
            if pairs is None
            else supposed(model, pairs, responses=2, batch_size=profile.dpo.batch_size),
        }
        lines += _schedules(profile, learning, learned, fits=all(plan.fits for plan in plans.values()))
    except CapacityError as error:
        faults.append(str(error))
    faults += [*_missing_packages(profile), *_other_profile(home, profile, name), *_other_tokenizer(home, model)]
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


def _other_profile(home: Home, profile: Profile, name: str) -> Iterator[str]:
    """DPO would be refused the home's SFT checkpoint, and sizes read off that one's tokenizer would be another's."""
    try:
        checkpoint = home.latest("sft_checkpoint")
    except ArtifactError:
        return
    try:
        refuse_other_profile(home, checkpoint, name=name, profile=profile, sections=("model",))
    except ArtifactError as error:
        yield str(error)


def _other_tokenizer(home: Home, model: ModelSettings) -> Iterator[str]:
    """A base model made from nothing has no tokenizer before its first training, and nothing to compare."""
    if model.scratch is not None:
        return
    base = base_file(model, "tokenizer.json")
    try:
        checkpoint = home.latest("sft_checkpoint").path / "model" / "tokenizer.json"
    except ArtifactError:
        return
    if base.is_file() and checkpoint.is_file():
        there = _vocabulary(checkpoint)
        changed = sum(there.get(token) != number for token, number in _vocabulary(base).items())
        if changed:
            yield (
                f"{changed:,} tokens of {where_is(model)[0]} have other numbers in this home's SFT checkpoint: it was "
                "made from another base. Materialize sft_checkpoint under this profile before DPO"
            )


def _vocabulary(path: Path) -> dict[str, int]:
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, added = tokenizer["model"]["vocab"], tokenizer.get("added_tokens", [])
    pairs = (
        vocabulary.items() if isinstance(vocabulary, dict) else ((token, n) for n, (token, _) in enumerate(vocabulary))
    )
    return {**dict(pairs), **{token["content"]: token["id"] for token in added}}


def _schedules(
    profile: Profile, learning: Learning, learned: Mapping[str, Learned | None], *, fits: bool
) -> Iterator[str]:
    model, compute = profile.model, profile.compute
    try:
        budget = choose_device(compute).batch_tokens
    except CapacityError:
        budget, fits = compute.batch_tokens, False
    if fits:
        yield "Times are those of the stage's own batches, measured just now on random weights of the model's shape."
    for stage, unit, settings in (("SFT", "demonstrations", profile.sft), ("DPO", "pairs", profile.dpo)):
        examples = learned[stage]
        if examples is None:
            yield f"{stage}: {learning.lacks(unit)}; --{unit} N says how many to plan for."
            continue
        size, seed = settings.batch_size, seed_for(model.seed, stage.lower())
        steps, tokens = examples.steps(batch_size=size, epochs=settings.epochs, seed=seed)
        batches = examples.micro_batches(batch_size=size, batch_tokens=budget, seed=seed)
        passes = round(len(batches) / max(1, len(examples.sample)) * examples.count * settings.epochs / steps) or 1
        lasts, shared = "", f" shared by {compute.processes} processes" if compute.processes > 1 else ""
        if fits:
            seconds = measure_steps(model, compute, optimizer=settings.optimizer, batches=batches).of_step(tokens)
            alone = " in one process" if compute.processes > 1 else ""
            lasts = f"; about {_duration(steps * seconds)}{alone} at {1_000 * seconds:,.0f} ms a step"
        yield (
            f"{stage}: {examples.count:,} {unit} ({examples.source}), {settings.batch_size} a step, "
            f"{settings.epochs:g} epochs: about {steps:,} steps of {tokens:,.0f} tokens, "
            f"in {passes} forward passes of at most {budget:,}{shared}{lasts}."
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3600:,.1f} h"
