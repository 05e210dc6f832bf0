"""What the body of an asset works with: pinned inputs, its own folders, the profile, the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from resources.gpu import Gpu
from resources.spool import Spool


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
    spool: Spool = field(default_factory=lambda: Spool(Path()))

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
        return self.gpu.perform(self.context, function, metrics=self.spool.path, **arguments)

    def say(self, sentence: str) -> None:
        """A line in the run's log; with `metrics` this makes a step a `Reporter`."""
        self.context.log.info(sentence)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, for the tracking run."""
        self.spool.add(step, values)

    def note(self, **facts: Any) -> None:
        """What is to be on record even if the work fails."""
        self.spool.note(facts)
