"""The accelerator as a resource: heavy library calls go through it, one at a time; a CPU is its shipped double."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import BaseModel, Field, PrivateAttr

from dpo_pipeline.core.artifacts import Outcome
from resources.launchers import ChildProcess, ForkedChild, InThisProcess, Launcher, Work, can_fork

POOL = "gpu"


class Gpu(dg.ConfigurableResource):
    """Performs training, scoring and generation on the device the profile names.

    Assets that use it belong to the Dagster pool `gpu`, which `dagster.yaml` limits to one.
    """

    launcher: Literal["auto", "child", "forked", "inline"] = Field(
        default="auto",
        description="child: a fresh process that gives all memory back; forked: the same, from one that has imported "
        "everything, on Linux without an accelerator; auto: forked where that can be, else child; inline: this "
        "process, for small tests on CPU.",
    )
    _started: Launcher | None = PrivateAttr(default=None)

    def perform(self, context: dg.AssetExecutionContext, function: str, *, metrics: Path, **arguments: Any) -> Outcome:
        """Call a library function on the device.

        Args:
            context: The asset's context; progress goes to its log.
            function: Where the function is: "dpo_pipeline.sft.train:train_sft".
            metrics: File the numbers of each step are appended to.
            arguments: The function's arguments: paths, settings, plain values.
        """
        if self._started is None:
            self._started = self._choose()
        work = Work(function=function, metrics=str(metrics), arguments={k: _plain(v) for k, v in arguments.items()})
        return self._started.launch(context, work)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let go of what was kept for the run's next piece of work."""
        del context
        if self._started is not None:
            self._started.close()
            self._started = None

    def _choose(self) -> Launcher:
        if self.launcher == "inline":
            return InThisProcess()
        if self.launcher == "forked" or (self.launcher == "auto" and can_fork()):
            return ForkedChild()
        return ChildProcess()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    json.dumps(value)
    return value
