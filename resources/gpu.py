"""The accelerator as a resource: heavy library calls go through it, one at a time; a CPU is its shipped double."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import BaseModel, Field

from dpo_pipeline.core.artifacts import Outcome
from resources.launchers import ChildProcess, InThisProcess, Launcher, Work

POOL = "gpu"


class Gpu(dg.ConfigurableResource):
    """Performs training, scoring and generation on the device the profile names.

    Assets that use it belong to the Dagster pool `gpu`, which `dagster.yaml` limits to one.
    """

    launcher: Literal["child", "inline"] = Field(
        default="child",
        description="child: a fresh process that gives all memory back; inline: this process, for small tests on CPU.",
    )

    def perform(self, context: dg.AssetExecutionContext, function: str, *, metrics: Path, **arguments: Any) -> Outcome:
        """Call a library function on the device.

        Args:
            context: The asset's context; progress goes to its log.
            function: Where the function is: "dpo_pipeline.sft.train:train_sft".
            metrics: File the numbers of each step are appended to.
            arguments: The function's arguments: paths, settings, plain values.
        """
        launcher: Launcher = ChildProcess() if self.launcher == "child" else InThisProcess()
        work = Work(function=function, metrics=str(metrics), arguments={k: _plain(v) for k, v in arguments.items()})
        return launcher.launch(context, work)


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
