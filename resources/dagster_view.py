"""Dagster read back: what its event log says was materialized, so that a forged event is seen for what it is."""

import os
from collections.abc import Collection, Iterable, Iterator

import dagster as dg

from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.witnesses import Record, ViewAwayError

PAGE = 1_000


class DagsterView:
    """Dagster as a witness: the instance of DAGSTER_HOME, else the one under the home."""

    name = "Dagster"

    def records(self, home: Home) -> Iterable[Record]:
        """One record a materialization event.

        Raises:
            ViewAwayError: If there is no instance, or its storage cannot be read.
        """
        folder = os.environ.get("DAGSTER_HOME") or str(home.root / "dagster")
        if not os.path.exists(os.path.join(folder, "dagster.yaml")):  # noqa: PTH110, PTH118 - a variable's text
            raise ViewAwayError(f"there is no Dagster instance in {folder}")
        try:
            with dg.DagsterInstance.from_config(folder) as instance:
                return list(records_of(instance))
        except Exception as error:
            raise ViewAwayError(f"Dagster's storage in {folder} cannot be read: {error}") from error

    def faults(self, home: Home, digests: Collection[str]) -> Iterable[str]:
        """Nothing beside its records."""
        del home, digests
        return ()


def records_of(instance: dg.DagsterInstance) -> Iterator[Record]:
    """Every materialization an instance knows of; the attempt is None where the event names none."""
    for key in instance.all_asset_keys():
        cursor, has_more = None, True
        while has_more:
            page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
            cursor, has_more = page.cursor, page.has_more
            for event in page.records:
                shown = event.asset_materialization
                assert shown is not None
                named = shown.metadata.get("attempt")
                yield Record(
                    attempt=None if named is None else str(named.value),
                    asset=key.to_user_string(),
                    partition=shown.partition,
                    digest=(shown.tags or {}).get("dagster/data_version"),
                    status="FINISHED",
                    recipe=None,
                    where=f"event {event.storage_id}",
                )
