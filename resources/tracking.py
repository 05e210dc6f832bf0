"""What an attempt asks of a tracking server, and the double that keeps nothing: the ledger is complete without it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import dagster as dg

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.home import Home
from resources.spool import Spool

Warn = Callable[[str], None]


class TrackedRun(Protocol):
    """One attempt as the tracking server sees it."""

    @property
    def url(self) -> str | None:
        """Where a person can look at it; None where there is nothing to look at."""
        ...

    def following(self) -> AbstractContextManager[None]:
        """A context in which the numbers the work leaves in its spool are sent on in batches."""
        ...

    def end(self, line: Mapping[str, Any], artifact: Artifact | None) -> None:
        """Close it as the ledger's `finished`, `failed` or `killed` line says."""
        ...


class Tracking(dg.ConfigurableResource):
    """Base of the tracking resources."""

    def begin(self, start: Mapping[str, Any], *, home: Home, warn: Warn, required: bool = False) -> TrackedRun:
        """Open a run for an attempt.

        Args:
            start: The ledger's `started` line.
            home: Where spools lie, and MLflow's files if it is embedded.
            warn: Hears that the server is away.
            required: Whether to refuse rather than go on while the server is away.

        Raises:
            TrackingError: If it is required and away; never otherwise.
        """
        raise NotImplementedError

    def move_alias(self, model: str, alias: str, digest: str | None, *, home: Home, warn: Warn) -> None:
        """Point an alias of a model at the version with a digest; never raises because a server is away.

        Args:
            model: The asset whose artifacts are the model's versions: "dpo_checkpoint".
            alias: "champion".
            digest: The artifact's digest; None takes the alias away.
            home: As in `begin`.
            warn: Hears that it could not be moved; the reconciler moves it later, as the ledger's history says.
        """
        raise NotImplementedError


class NoTracking(Tracking):
    """The double: keeps nothing."""

    def begin(self, start: Mapping[str, Any], *, home: Home, warn: Warn, required: bool = False) -> TrackedRun:
        """A run that is nowhere."""
        del warn, required
        return _NoRun(Spool.of(home, start["attempt"]))

    def move_alias(self, model: str, alias: str, digest: str | None, *, home: Home, warn: Warn) -> None:
        """Move nothing."""


class _NoRun:
    url = None

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    @contextmanager
    def following(self) -> Iterator[None]:
        yield

    def end(self, line: Mapping[str, Any], artifact: Artifact | None) -> None:
        del line, artifact
        self._spool.remove()
