"""The books of a build: what became of every judgment, added up a range of pairs at a time."""

import numpy as np

from dpo_pipeline.core.books import Books
from dpo_pipeline.preferences.adding_up import counted
from dpo_pipeline.preferences.fates import Fates
from dpo_pipeline.preferences.noise import Toward
from dpo_pipeline.preferences.reasons import Reason
from dpo_pipeline.preferences.verdicts import Status, Verdicts


class Tally:
    """What became of every judgment, each exactly once, and how they came."""

    def __init__(self) -> None:
        self.books = Books()
        self.books.kept["judgments"] = 0
        self.repeated = self.redelivered = self.shown_in_both_orders = 0
        self.toward = Toward()

    def add(self, verdicts: Verdicts, fates: Fates) -> None:
        """Count the judgments on a range of pairs."""
        books, status = self.books, verdicts.status
        books.records_in += len(verdicts)
        repeated, redelivered = status == Status.REPEAT, status == Status.REDELIVERED
        is_merged = repeated | redelivered
        self.repeated += int(repeated.sum())
        self.redelivered += int(redelivered.sum())
        books.merged += int(is_merged.sum())
        in_kept = fates.is_alive[verdicts.pair] & ~is_merged
        books.kept["judgments"] += int((in_kept & verdicts.is_counted).sum())
        for number, reason in ((Status.SKIPPED, Reason.SKIPPED), (Status.NOT_RATEABLE, Reason.NOT_RATEABLE)):
            if hits := int((in_kept & (status == number)).sum()):
                books.rejected[reason.value] += hits
        of_pair = np.bincount(fates.reason[verdicts.pair[~in_kept & ~is_merged]], minlength=len(fates.names))
        books.rejected.update({name: int(hits) for name, hits in zip(fates.names, of_pair, strict=True) if hits})
        shown = [np.bincount(verdicts.pair[verdicts.b_is_low == side], minlength=len(fates.reason)) for side in (0, 1)]
        self.shown_in_both_orders += int(((shown[0] > 0) & (shown[1] > 0)).sum())
        pair, _, side, *_ = counted(verdicts)
        self.toward.add(pair, side)
