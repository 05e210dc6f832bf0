"""Checkpoints of a training: written aside, manifest last, pruned after; resumed to the bit on a CPU.

A checkpoint holds what changes: trained weights, optimizer moments, random states, the step. Tensors are safetensors,
the rest is JSON: nothing is pickled. The order of the data is a function of the seed and the step, so the step is the
data's position.
"""

import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling import processes

MANIFEST = "manifest.json"
STATE = "state.json"
WEIGHTS, MOMENTS, CHANCE = "weights.safetensors", "moments.safetensors", "chance.safetensors"
PREFIX, ASIDE = "step-", ".writing-"
NAME = re.compile(rf"{PREFIX}\d{{9,}}(?:\.\d+)?", re.ASCII)
KEPT = 2


def save_checkpoint(
    folder: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    key: str,
    best: Collection[int] = (),
) -> Path:
    """Write `step-<step>` under `folder`, then remove all but it, the one before and the best; a crash harms none.

    Args:
        folder: The work folder's checkpoints.
        model: The model; only parameters that are trained are written.
        optimizer: Its optimizer.
        step: Optimizer steps done.
        key: Digest of everything that shapes the training; a checkpoint is only ever resumed under the same key.
        best: Steps whose checkpoints stay as well, for the best of them will be published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{ASIDE}{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        _write(aside, model, optimizer, {"step": step, "key": key})
        target = _free_name(folder, step)
        aside.rename(target)
        _sync(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _prune(folder, target, best)
    return target


def resume(
    folder: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    key: str,
    reporter: Reporter,
    best_until: Callable[[int], int] = int,
) -> int:
    """Put model, optimizer and chance back to the newest whole checkpoint of this training; the steps it had done.

    Checkpoints that are partial, altered or of another training are skipped, saying so, and so are those whose best
    weights until then are lost: a training from there could not publish them at its end. 0 where none is left.

    Args:
        folder: Of the checkpoints.
        model: Policy to put back.
        optimizer: Its optimizer.
        key: Digest of everything that shapes the training.
        reporter: Hears what was skipped and where it goes on.
        best_until: The step that would be published, had the training ended after a given one; by itself that one.
    """
    for abandoned in folder.glob(f"{ASIDE}*") if processes.is_first() else ():
        shutil.rmtree(abandoned)
    for checkpoint in _newest_first(folder):
        fault = _fault(checkpoint, key)
        step = _step_of(checkpoint)
        if not fault and (best := best_until(step)) != step and not _whole(folder, best, key):
            fault = f"the checkpoint of step {best}, the best until then, is lost"
        if fault:
            reporter.say(f"Skipped the checkpoint {checkpoint.name}: {fault}.")
            continue
        step = _restore(checkpoint, model, optimizer)
        reporter.say(f"Resumed from {checkpoint.name}: {step} steps are done.")
        return step
    return 0


def restore_step(folder: Path, model: Any, optimizer: torch.optim.Optimizer, *, step: int, key: str) -> None:
    """Put model and optimizer back to how they were after a step whose checkpoint was kept.

    Raises:
        TrainingError: If there is none that is whole and of this training.
    """
    whole = _whole(folder, step, key)
    if whole:
        _restore(whole, model, optimizer)
        return
    faults = {path.name: _fault(path, key) for path in _of_step(folder, step)}
    raise TrainingError(
        f"the checkpoint of step {step}, the best, cannot be had back: {faults or 'there is none'}",
        expected=f"{PREFIX}{step:09d} in {folder}, as it was written",
        do="Remove the work folder and train again, or set patience to 0 and take the weights of the last step",
    )


def _write(folder: Path, model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    save_file({name: p.detach().contiguous() for name, p in _trained(model).items()}, folder / WEIGHTS)
    tensors, numbers = _flatten(optimizer.state_dict()["state"])
    save_file(tensors, folder / MOMENTS)
    save_file(_random_states(), folder / CHANCE)
    (folder / STATE).write_text(json.dumps({**state, "moments": numbers}), encoding="utf-8")
    names = (WEIGHTS, MOMENTS, CHANCE, STATE)
    for name in names:
        _sync(folder / name)
    manifest = {name: sha256_of_file(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    weights = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            parameter.copy_(weights[name])
    optimizer.state.clear()  # or a trained optimizer, when the best weights are taken, would hold both at once
    moments = _nested({**load_file(folder / MOMENTS), **state["moments"]})
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    _set_random_states(load_file(folder / CHANCE))
    return int(state["step"])


def _fault(folder: Path, key: str) -> str:
    """Why a checkpoint cannot be resumed from; empty where it can."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        altered = [name for name, digest in manifest.items() if sha256_of_file(folder / name) != digest]
        if altered:
            return f"{', '.join(altered)} is not what was written"
        of_other = json.loads((folder / STATE).read_text(encoding="utf-8"))["key"] != key
    except (OSError, ValueError, KeyError) as error:
        return f"it is not whole ({type(error).__name__})"
    return "it belongs to other data, settings or code" if of_other else ""


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _flatten(state: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """An optimizer's state as tensors and numbers named `index.field`; 8-bit ones have fields within a field."""
    items = dict(_leaves(state))
    tensors = {name: value.contiguous() for name, value in items.items() if isinstance(value, torch.Tensor)}
    return tensors, {name: value for name, value in items.items() if not isinstance(value, torch.Tensor)}


def _leaves(state: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _nested(leaves: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The state whose leaves these are."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in leaves.items():
        index, *path, field = name.split(".")
        fields = state.setdefault(int(index), {})
        for part in path:
            fields = fields.setdefault(part, {})
        fields[field] = value
    return state


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _free_name(folder: Path, step: int) -> Path:
    """A name nothing has yet: what `resume` passed over may hold `step-N`, and is removed only after the new one."""
    name = f"{PREFIX}{step:09d}"
    return next(path for n in itertools.count() if not (path := folder / (f"{name}.{n}" if n else name)).exists())


def _prune(folder: Path, newest: Path, best: Collection[int]) -> None:
    """Keep the one just written, those right before it and the best. Any later are ones that `resume` passed over."""
    step = newest.name.partition(".")[0]
    before = [path for path in _newest_first(folder) if path.name < step]
    names = {f"{PREFIX}{number:09d}" for number in best}
    kept = {newest, *before[: KEPT - 1], *(path for path in before if path.name.partition(".")[0] in names)}
    for old in {*_newest_first(folder)} - kept:
        shutil.rmtree(old)


def _newest_first(folder: Path) -> list[Path]:
    # A copy that a person made beside them bears another name, and is neither resumed from nor removed.
    return sorted((path for path in folder.glob(f"{PREFIX}*") if NAME.fullmatch(path.name)), reverse=True)


def _of_step(folder: Path, step: int) -> list[Path]:
    return [path for path in reversed(_newest_first(folder)) if _step_of(path) == step]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX).partition(".")[0])


def _whole(folder: Path, step: int, key: str) -> Path | None:
    """A checkpoint of a step that can be resumed from; None where there is none."""
    return next((path for path in _of_step(folder, step) if not _fault(path, key)), None)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
