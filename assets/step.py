"""What the body of an asset works with: pinned inputs, its own folders, the profile, the device."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from resources.gpu import Gpu


@dataclass(slots=True)
class Step:
    """What an asset's body works with: pinned inputs, its own folders, the profile, the device."""

    context: dg.AssetExecutionContext
    profile: Profile
    home: Home
    gpu: Gpu
    partition: str | None
    inputs: Mapping[str, Sequence[tuple[str | None, Artifact]]]
    shaped: Mapping[str, Any] = field(default_factory=dict)
    out: Mapping[str, Path] = field(default_factory=dict)
    work: Path = Path()

    @property
    def metrics_path(self) -> Path:
        """The file the numbers of each step are appended to while the work runs."""
        return self.work / "progress.jsonl"

    def folder(self, name: str | None = None) -> Path:
        """The folder to write into; the only one, or that of the asset named."""
        return self.out[name] if name else next(iter(self.out.values()))

    def read(self, asset: str) -> Path:
        """The folder of an input that is not partitioned, or of this drop."""
        return self.inputs[asset][0][1].path

    def find(self, role: str) -> Path | None:
        """The folder of an input that need not be there (see `also_reads`); None where there is none."""
        found = self.inputs.get(role)
        return found[0][1].path if found else None

    def read_all(self, asset: str) -> list[Path]:
        """The folders of an input, one per drop, in order of arrival."""
        return [artifact.path for _, artifact in self.inputs[asset]]

    def perform(self, function: str, **arguments: Any) -> Outcome:
        """Call a library function on the device; see `Gpu.perform`."""
        return self.gpu.perform(self.context, function, metrics=self.metrics_path, **arguments)

    def say(self, sentence: str) -> None:
        """A line in the run's log; with `metrics` this makes a step a `Reporter`."""
        self.context.log.info(sentence)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, for the tracking run."""
        from dpo_pipeline.core.metrics import append_metrics

        append_metrics(self.metrics_path, step, {**values, "time": time.time()})
