"""Whether the machine has what a training needs, before anything is loaded: memory, disk, packages."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.device import Device, choose_device, free_memory_bytes, require_bitsandbytes
from dpo_pipeline.modeling.memory import ADAM_BYTES, BF16, FP32, GIB, Term, memory_terms
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, Precision
from dpo_pipeline.modeling.shapes import adapter_parameter_count, architecture_of, config_path, parameter_count

# The newest, the one before it and the one being written; with patience also the best two, for one will be published.
KEPT_CHECKPOINTS, KEPT_WITH_PATIENCE = 3, 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training needs and what the machine has.

    Attributes:
        parameters: All weights of the model.
        trained: Those that are trained.
        memory: The terms of the sum, in bytes of device memory, of each process.
        disk_bytes: Checkpoints while training, and the published weights.
        device: Where it would run, in words.
        memory_free: Free bytes of device memory for each process; None where there is no such device.
        disk_free: Free bytes of disk.
        processes: How many processes share the training; each needs the memory, one writes to the disk.
        notes: What else a person should know, such as a base that is not on this machine yet.
    """

    parameters: int
    trained: int
    memory: tuple[Term, ...]
    disk_bytes: float
    device: str
    memory_free: float | None
    disk_free: float
    processes: int = 1
    notes: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> float:
        """The sum of the terms."""
        return sum(term.size for term in self.memory)

    @property
    def fits(self) -> bool:
        """Whether the machine has the device, its memory and the disk."""
        has_memory = self.memory_free is not None and self.memory_bytes <= self.memory_free
        return has_memory and self.disk_bytes <= self.disk_free

    def as_text(self) -> str:
        """The sum as a person would write it down, and the verdict."""
        rows = [f"{self.parameters:,} parameters, {self.trained:,} of them trained"]
        rows += [f"  {term.name:12} {_gib(term.size):>10}   {term.why}" for term in self.memory]
        rows.append(f"  {'memory':12} {_gib(self.memory_bytes):>10}   {self._memory_verdict()}")
        enough = "enough" if self.disk_bytes <= self.disk_free else "NOT ENOUGH"
        rows.append(f"  {'disk':12} {_gib(self.disk_bytes):>10}   {_gib(self.disk_free)} free: {enough}")
        rows += [f"  note: {note}" for note in self.notes]
        return "\n".join([*rows, "This machine has what it takes." if self.fits else "This machine does not have it."])

    def _memory_verdict(self) -> str:
        if self.memory_free is None:
            return self.device
        enough = "enough" if self.memory_bytes <= self.memory_free else "NOT ENOUGH"
        each = "" if self.processes == 1 else f" for each of {self.processes} processes"
        return f"{_gib(self.memory_free)} free{each} on {self.device}: {enough}"


def plan_training(
    model: ModelSettings,
    compute: ComputeSettings,
    *,
    optimizer: str = "adamw",
    patience: int = 0,
    folder: Path | None = None,
) -> Plan:
    """What training under these settings needs on this machine; loads no weights.

    Args:
        model: The base model and adapter.
        compute: The machine.
        optimizer: As in OptimizerSettings.kind.
        patience: As in the stage's settings; above 0 the best checkpoints stay too.
        folder: Where checkpoints would go; the current directory unless given.

    Raises:
        CapacityError: If the model's shape is not known here.
    """
    try:
        device = choose_device(compute)
    except CapacityError as error:
        precision = Precision.BF16 if compute.precision is Precision.AUTO else compute.precision
        wanted = Device(compute.device, str(error.found), precision, 0, compute.batch_tokens)
        return _plan(model, compute, wanted, optimizer=optimizer, patience=patience, memory_free=None, folder=folder)
    return _plan(
        model,
        compute,
        device,
        optimizer=optimizer,
        patience=patience,
        memory_free=free_memory_bytes(device),
        folder=folder,
    )


def require_fit(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    *,
    optimizer: str,
    reporter: Reporter,
    patience: int = 0,
    folder: Path | None = None,
) -> None:
    """Say the sum in one line, and stop before anything is loaded if it or a package it counts on is missing.

    A base whose shape is not known yet (a hub id not downloaded, no `architecture` in the profile) is let through.

    Raises:
        CapacityError: With the whole sum, or naming the setting that needs bitsandbytes and CUDA.
    """
    if model.adapter is not None and model.adapter.quantize_base:
        require_bitsandbytes("model.adapter.quantize_base")
    if optimizer != "adamw":
        require_bitsandbytes(f"optimizer.kind {optimizer}")
    try:
        free = free_memory_bytes(device)
        plan = _plan(model, compute, device, optimizer=optimizer, patience=patience, memory_free=free, folder=folder)
    except CapacityError as error:
        reporter.say(f"Not checked whether it fits: {error.found}.")
        return
    need, there = _gib(plan.memory_bytes), _gib(plan.memory_free or 0.0)
    if not plan.fits:
        raise CapacityError(
            f"the training does not fit this machine:\n{plan.as_text()}\n",
            expected=f"at most {there} of memory and {_gib(plan.disk_free)} of disk",
            do="Lower compute.batch_tokens, switch on compute.gradient_checkpointing, or train an adapter "
            "(model.adapter), with quantize_base if need be",
        )
    terms = ", ".join(f"{term.name} {_gib(term.size)}" for term in plan.memory)
    reporter.say(f"Needs about {need} of {there} free: {terms}.")


def _plan(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    *,
    optimizer: str,
    patience: int,
    memory_free: float | None,
    folder: Path | None,
) -> Plan:
    shape = architecture_of(model)
    parameters = parameter_count(shape)
    # Cards are one to a process; the memory of the machine itself is shared out.
    sharers = compute.processes if device.kind == "cpu" else 1
    trained = parameters if model.adapter is None else adapter_parameter_count(shape, rank=model.adapter.rank)
    published = trained * FP32
    kept = KEPT_WITH_PATIENCE if patience else KEPT_CHECKPOINTS
    return Plan(
        parameters=parameters if model.adapter is None else parameters + trained,
        trained=trained,
        memory=tuple(memory_terms(model, compute, device, shape, optimizer=optimizer)),
        disk_bytes=kept * trained * (FP32 + max(ADAM_BYTES[optimizer], 2.0)) + published,
        device=f"{device.name} ({device.kind}, {device.precision})" if memory_free is not None else device.name,
        memory_free=None if memory_free is None else memory_free / sharers,
        disk_free=float(shutil.disk_usage(_existing(folder or Path.cwd())).free),
        processes=compute.processes,
        notes=tuple(_notes(model, parameters)),
    )


def _notes(model: ModelSettings, parameters: int) -> Iterator[str]:
    if model.hub is not None and config_path(model) is None:
        size = _gib(parameters * BF16)
        yield f"{model.hub} is not in this machine's cache; about {size} are downloaded at the first training"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
