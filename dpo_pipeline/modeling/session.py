"""A training in its work folder: the lock, the place to go on from, the history of its numbers, words for people.

Where several processes share a training, the first alone holds the lock, writes and speaks; the others remember.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch

from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.core.metrics import Reporter, append_metrics
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.checkpoints import restore_step, resume, save_checkpoint
from dpo_pipeline.modeling.curves import Panel, draw_curves
from dpo_pipeline.modeling.device import Device, peak_memory_bytes
from dpo_pipeline.modeling.locks import sole_owner
from dpo_pipeline.modeling.optimizer import learning_rate_at, set_learning_rate, update_means
from dpo_pipeline.modeling.policy import save_policy
from dpo_pipeline.modeling.settings import ModelSettings, OptimizerSettings
from dpo_pipeline.modeling.stopping import Watched, best_steps, early_stop, is_stale

HISTORY = "history.jsonl"
CHECKPOINTS = "checkpoints"
SECONDS_BETWEEN_WORDS = 5.0
SPEEDS_REMARKED = 60


class Session:
    """One training, from its lock to its last step.

    Args:
        work: The work folder, found again by a retry.
        key: Digest of everything that shapes the training.
        steps: Optimizer steps in all.
        checkpoint_minutes: Minutes between checkpoints.
        watched: The number by which it tells whether it still gets better.
        patience: Validations without a better one after which it stops early; 0 never does.
        device: Where the model lies.
        reporter: Hears sentences and numbers.
    """

    def __init__(
        self,
        work: Path,
        *,
        key: str,
        steps: int,
        checkpoint_minutes: float,
        watched: Watched,
        patience: int,
        device: Device,
        reporter: Reporter,
    ) -> None:
        self.work, self.key, self.steps, self.device, self.reporter = work, key, steps, device, reporter
        self._checkpoint_seconds, self._watched, self._patience = checkpoint_minutes * 60, watched, patience
        self._held = ExitStack()
        self.first_step = self.tokens = 0
        self._speeds: list[tuple[int, int]] = []  # each that of the stretch since the one before
        self.history: list[dict[str, Any]] = []
        self._started = self._spoke = self._saved = time.monotonic()
        self._marked = self._started, self.tokens

    def __enter__(self) -> Self:
        if processes.is_first():
            self._held.enter_context(sole_owner(self.work))
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._held.__exit__(*error)  # type: ignore[arg-type]

    def resume(self, model: Any, optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> None:
        """Go back to where an earlier attempt of the same training was stopped, or start at the first step."""
        self._model, self._optimizer, self._settings = model, optimizer, settings
        lines = _read_history(self.work)
        self.first_step = resume(
            self.work / CHECKPOINTS,
            model,
            optimizer,
            key=self.key,
            reporter=self.reporter,
            best_until=lambda step: (self._best_steps(lines[:step]) or [step])[-1],
        )
        self.history = lines[: self.first_step]
        processes.require_same([self.first_step, *weights_in_short(model)], what="the weights they start from")
        if processes.is_first():
            # Steps after the checkpoint are done again: their lines go, in one piece, so that a crash here costs none.
            aside = self.work / f"{HISTORY}.aside"
            aside.write_text("".join(json.dumps(line) + "\n" for line in self.history), encoding="utf-8")
            aside.replace(self.work / HISTORY)
            self.reporter.note(resumed_from_step=self.first_step, steps_planned=self.steps, processes=processes.size())
        self._started = self._spoke = self._saved = time.monotonic()
        self._marked = self._started, self.tokens

    def remaining(self) -> Iterator[int]:
        """The steps still to be done, 0-based, until what is watched gets no better."""
        for step in range(self.first_step, self.steps):
            if is_stale(self.history, self._watched, patience=self._patience):
                return
            yield step

    @property
    def stopped_early(self) -> str:
        """After which step and why a training that is over stopped early; empty where it did not."""
        return early_stop(self.history, self._watched, patience=self._patience, steps=self.steps)

    def update(self, step: int, *, loss: float, examples: Sequence[str]) -> Mapping[str, float]:
        """Clip the gradients, added up over all processes, take one optimizer step, and forget the gradients.

        Args:
            step: The step, 0-based.
            loss: The step's loss, already backpropagated.
            examples: Names of the examples in it, for the message should it have gone wrong.

        Returns:
            loss, grad_norm (before clipping) and learning_rate.

        Raises:
            TrainingError: If the loss or the gradient is not finite; the weights are then as they were.
        """
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        processes.sum_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm, foreach=True))
        processes.require_nobody_lost()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"step {step + 1} has loss {loss} and gradient norm {norm}, in examples {', '.join(examples)}",
                expected="finite numbers",
                do="Look at these examples; lower optimizer.learning_rate if they are sound",
            )
        rate = learning_rate_at(step, self.steps, self._settings)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._settings.ema_decay:
            update_means(self._optimizer, decay=self._settings.ema_decay)
        return {"loss": loss, "grad_norm": norm, "learning_rate": rate}

    def record(self, step: int, values: Mapping[str, float], *, tokens: int) -> None:
        """Keep the step's numbers, tell the reporter, write a checkpoint when one is due.

        Args:
            step: The step just done, 0-based.
            values: Numbers that depend on data and settings alone.
            tokens: Tokens that went through the model.
        """
        self.tokens += tokens
        self.history.append({"step": step + 1, **values})
        if not processes.is_first():
            return
        append_metrics(self.work / HISTORY, step + 1, values)
        now = time.monotonic()
        speed = self.tokens / max(now - self._started, 1e-9)
        left = (now - self._started) / (step + 1 - self.first_step) * (self.steps - step - 1)
        self.reporter.metrics(step + 1, {**values, "tokens_per_second": speed, "seconds_left": left})
        if (step + 1 - self.first_step) % max(1, (self.steps - self.first_step) // SPEEDS_REMARKED) == 0:
            before, tokens_before = self._marked
            self._speeds.append((step + 1, round((self.tokens - tokens_before) / max(now - before, 1e-9))))
            self._marked = now, self.tokens
        if now - self._spoke > SECONDS_BETWEEN_WORDS or step + 1 == self.steps:
            self._spoke = now
            self.reporter.say(
                f"Step {step + 1} of {self.steps}: loss {values['loss']:.4f}, {speed:,.0f} tokens/s, "
                f"{peak_memory_bytes(self.device) / 2**30:.1f} GiB at most; about {left:.0f} s left."
            )
        is_best = self._watched in values and self._best_steps(self.history)[-1:] == [step + 1]
        is_due = is_best or now - self._saved > self._checkpoint_seconds
        if is_due and step + 1 < self.steps:
            self._checkpoint(step + 1)

    @property
    def published_step(self) -> int:
        """The step, from 1, whose weights a training that is over publishes: with patience the best, else the last."""
        return (self._best_steps(self.history) or [len(self.history)])[-1]

    def take_best(self) -> None:
        """Put back the weights, and their running means, of the best validation, where patience asks for one."""
        if self.published_step < len(self.history):
            restore_step(self.work / CHECKPOINTS, self._model, self._optimizer, step=self.published_step, key=self.key)

    def _best_steps(self, history: Sequence[Mapping[str, Any]]) -> list[int]:
        return best_steps(history, self._watched) if self._patience else []

    def remarks(self) -> dict[str, Any]:
        """What must not enter an artifact: seconds, speed, memory, device, where it went on from."""
        seconds = time.monotonic() - self._started
        return {
            "seconds": round(seconds, 1),
            "tokens_per_second": round(self.tokens / max(seconds, 1e-9)),
            "speeds": {"step": [step for step, _ in self._speeds], "tokens_per_second": [s for _, s in self._speeds]},
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "device": self.device.sentence,
            "processes": processes.size(),
            "resumed_from_step": self.first_step,
        }

    def publish(
        self, model: Any, tokenizer: Any, out: Path, *, panels: Sequence[Panel], settings: ModelSettings
    ) -> list[dict[str, Any]]:
        """Write model/, metrics.jsonl and curves.png into `out`; the numbers of every step of all attempts."""
        processes.require_same(weights_in_short(model), what="the weights they end with")
        if processes.is_first():
            save_policy(model, tokenizer, out / "model", settings=settings)
            shutil.copyfile(self.work / HISTORY, out / "metrics.jsonl")
            draw_curves(self.history, out / "curves.png", panels=panels)
        early, published = self.stopped_early, self.published_step
        self.reporter.say(f"Stopped early, {early}." if early else f"All {self.steps} steps are done.")
        if published < len(self.history):
            self.reporter.say(f"Published are the weights after step {published}, the best of its validations.")
        return self.history

    def _checkpoint(self, step: int) -> None:
        with (self.work / HISTORY).open("rb") as stream:
            os.fsync(stream.fileno())
        # The two last records: should this checkpoint be lost, the one before it still finds the best until then.
        best = self._best_steps(self.history)[-2:]
        save_checkpoint(self.work / CHECKPOINTS, self._model, self._optimizer, step=step, key=self.key, best=best)
        self._saved = time.monotonic()


def recent_mean(history: Sequence[Mapping[str, Any]], name: str) -> float:
    """A metric's mean over the last twentieth of the steps, at least one."""
    recent = [line[name] for line in history[-max(1, len(history) // 20) :]]
    return math.fsum(recent) / len(recent)


def write_training(
    out: Path,
    *,
    stage: str,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
    facts: Mapping[str, Any],
    left_out: Mapping[str, str],
) -> None:
    """Write training.json: what was asked for, what was done, and which examples were left out, with the reason."""
    if not processes.is_first():
        return
    content = {"stage": stage, "settings": settings, "counts": counts, "facts": facts, "left_out": left_out}
    (out / "training.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def weights_in_short(model: torch.nn.Module) -> tuple[float, float]:
    """Two sums over the trained weights, by which processes tell whether they hold the same."""
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    sums = torch.stack([torch.stack([p.sum(dtype=torch.float32), p.norm(dtype=torch.float32)]) for p in trained])
    first, second = sums.double().sum(0).tolist()
    return first, second


def _read_history(work: Path) -> list[dict[str, Any]]:
    """The numbers of the steps so far; a last line that a crash cut short is left out."""
    path = work / HISTORY
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
