"""What a check of the audit says: what it looked at, which faults it found, or why it could not run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the audit.

    Attributes:
        name: A sentence that holds where there are no faults ("books balance").
        looked_at: What was gone through, with its number ("1,204 files of 14 artifacts").
        faults: One sentence per fault, naming the file or record and both values.
        not_run: Why the check could not run; a check that did not run is never a pass.
        notes: What a reader must know though it is no fault; they stand among the open points.
    """

    name: str
    looked_at: str
    faults: tuple[str, ...] = ()
    not_run: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """`fault`, `not run` or `ok`."""
        return "fault" if self.faults else "not run" if self.not_run else "ok"
