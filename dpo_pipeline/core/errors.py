"""One tree of errors, each saying what was found, what was expected and what to do.

PipelineError
├── InputError        annotation files or tables that cannot be used
├── SettingsError     a profile whose values do not fit; carries every fault at once
├── ArtifactError     an artifact that is missing, altered or incomplete
├── LedgerError       a ledger whose chain is broken
├── CapacityError     model, data or disk do not fit this machine
├── TrackingError     a tracking server that is away where the profile insists on it
├── TrainingError     a loss or gradient that is not finite, a run that cannot go on
└── ProcessLostError  one of several processes ended before its work was done; a retry resumes
"""

from collections.abc import Sequence


class PipelineError(Exception):
    """Base of every error raised on purpose.

    Args:
        found: What was met, as a clause without a full stop.
        expected: What would have been fine.
        do: What the reader can do about it, as a sentence.
    """

    is_worth_a_retry = False
    """Whether the same again may go well: foreseen errors come back until somebody changes something."""

    def __init__(self, found: str, *, expected: str = "", do: str = "") -> None:
        self.found, self.expected, self.do = found, expected, do
        sentences = [f"{found.rstrip('.')}."]
        if expected:
            sentences.append(f"Expected: {expected.rstrip('.')}.")
        if do:
            sentences.append(f"{do.rstrip('.')}.")
        super().__init__(" ".join(sentences))


class InputError(PipelineError):
    """Annotation files or tables that cannot be used."""


class ArtifactError(PipelineError):
    """An artifact that is missing, altered or incomplete."""


class LedgerError(PipelineError):
    """A ledger whose chain is broken or whose lines cannot be read."""


class CapacityError(PipelineError):
    """Model, data or disk do not fit this machine."""


class TrackingError(PipelineError):
    """A tracking server that is away where the profile insists on it, or that lacks what it was told."""


class TrainingError(PipelineError):
    """A training run that cannot go on."""


class ProcessLostError(PipelineError):
    """One of the processes that share a stage ended before its work was done."""

    is_worth_a_retry = True


class SettingsError(PipelineError):
    """A profile whose values do not fit; reports every fault at once.

    Args:
        where: The profile or file the values came from.
        faults: One sentence per fault.
    """

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where, self.faults = where, tuple(faults)
        listing = "\n".join(f"  - {fault}" for fault in faults)
        count = "1 value does" if len(faults) == 1 else f"{len(faults)} values do"
        self.found = f"{count} not fit in {where}"
        self.expected, self.do = "", "Correct them together and run again"
        Exception.__init__(self, f"{self.found}:\n{listing}\n{self.do}.")
