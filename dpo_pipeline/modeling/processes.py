"""One stage in several processes of one machine: each holds the model, a step's examples are dealt out among them.

What one process does after another, several do at once: gradients and sums are added up before they are used, so the
weights are those of one process to rounding, and a training may be resumed with another number of processes. Only the
first process says, writes and answers; without a group every function here does what a single process needs, so callers
never ask how many there are. torch.distributed directly: DDP's hooks want the loss inside `model(...)`, and a scorer
that never forms all logits stands outside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import torch
import torch.distributed as dist

from dpo_pipeline.core import errors
from dpo_pipeline.core.errors import CapacityError, PipelineError, ProcessLostError, TrainingError
from dpo_pipeline.modeling.batches import Group
from dpo_pipeline.modeling.device import MORE_MEMORY, is_out_of_memory

_somebody_is_lost = Event()


def rank() -> int:
    """This process's number, 0 for the first or only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that says, writes and answers."""
    return rank() == 0


def share_of(groups: Sequence[Group]) -> list[Group]:
    """This process's part of the groups: every group is in exactly one part, and parts are about equal in tokens."""
    return [groups[place] for place in share_of_sizes([group.tokens for group in groups])]


def share_of_sizes(sizes: Sequence[int]) -> Sequence[int]:
    """The places of this process's part of groups of these sizes in tokens."""
    filled, parts = [0] * size(), [list[int]() for _ in range(size())]
    if size() == 1:
        return range(len(sizes))
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        least = filled.index(min(filled))
        parts[least].append(place)
        filled[least] += sizes[place]
    return parts[rank()]


def call_off() -> None:
    """Have every exchange under way in this process end, for one of the others is lost; called from another thread.

    On cards an exchange that was called off returns without an error and leaves numbers that mean nothing, so whoever
    uses what was exchanged asks `require_nobody_lost` first.
    """
    _somebody_is_lost.set()
    for kind in ("cuda", "cpu"):
        with suppress(RuntimeError, ValueError):  # no such backend in this group, or one that cannot be called off
            dist.group.WORLD._get_backend(torch.device(kind)).abort()  # noqa: SLF001  # pyright: ignore[reportOptionalMemberAccess]


def require_nobody_lost() -> None:
    """Make sure that what was exchanged is what all processes gave.

    Raises:
        RuntimeError: If the exchange was called off; the one who started the processes says whose end it was.
    """
    if _somebody_is_lost.is_set():
        raise RuntimeError("an exchange between processes was called off")


def begin() -> None:
    """Forget losses of an earlier group."""
    _somebody_is_lost.clear()


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place, the same bits in each."""
    if size() > 1:
        dist.all_reduce(values)
        require_nobody_lost()
    return values


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up every process's gradients in place. Where no process has one there is none afterwards, as in one process.

    Args:
        parameters: The trained ones, in an order that is the same in every process.
    """
    if size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    exists = summed(torch.tensor([float(parameter.grad is not None) for parameter in trained]))
    handles: list[Any] = []
    for parameter, count in zip(trained, exists.tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        handles.append(dist.all_reduce(parameter.grad, async_op=True))
    for handle in handles:
        handle.wait()
    # On a card this is in a queue still: `Session.update` asks again once it has seen the gradients' norm.
    require_nobody_lost()


def require_same(values: Sequence[float], *, what: str) -> None:
    """Make sure that every process stands at the same place; they wait for each other here.

    Raises:
        TrainingError: If the numbers are not the same to the bit in all processes.
    """
    if size() == 1:
        return
    low = torch.tensor(values, dtype=torch.float64)
    high = low.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if not torch.equal(low, high):
        raise TrainingError(
            f"the processes of this training differ in {what}",
            expected="the same files and packages in every one",
            do="Run again; if it comes back, train with compute.processes 1 and report it",
        )


@contextmanager
def faults_shared() -> Iterator[None]:
    """What goes wrong in one process inside this block is raised in all of them; they meet at its end."""
    fault: Exception | None = None
    try:
        yield
    except Exception as error:
        if size() == 1:
            raise
        fault = error
    if size() == 1 or not summed(torch.tensor([float(fault is not None)])).item():
        return
    told: list[Any] = [None] * size()
    dist.all_gather_object(told, _in_words(fault))
    if fault is not None:
        raise fault
    raise _from_words(next(words for words in told if words))


def _in_words(fault: Exception | None) -> tuple[str, str, str, str] | None:
    if fault is None:
        return None
    if is_out_of_memory(fault):
        return CapacityError.__name__, "memory ran out while training", "", MORE_MEMORY
    if isinstance(fault, PipelineError):
        return type(fault).__name__, fault.found, fault.expected, fault.do
    return ProcessLostError.__name__, f"{type(fault).__name__}: {fault}", "", ""


def _from_words(words: tuple[str, str, str, str]) -> PipelineError:
    kind, found, expected, do = words
    return getattr(errors, kind)(found, expected=expected, do=do)
