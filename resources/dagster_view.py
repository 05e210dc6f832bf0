"""Dagster read back: what its event log says was materialized, so that a forged event is seen for what it is."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

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

    def mark(self, home: Home, marks: Mapping[str, str]) -> list[str]:
        """Show each attempt's sentence as an observation of its asset; what was newly shown."""
        folder = os.environ.get("DAGSTER_HOME") or str(home.root / "dagster")
        if not os.path.exists(os.path.join(folder, "dagster.yaml")):  # noqa: PTH110, PTH118 - a variable's text
            return []
        with dg.DagsterInstance.from_config(folder) as instance:
            return list(mark_in(instance, marks))


def mark_in(instance: dg.DagsterInstance, marks: Mapping[str, str]) -> Iterator[str]:
    """Observe the asset of each attempt that has no such observation yet."""
    for attempt, sentence in sorted(marks.items()):
        key = dg.AssetKey(attempt.split("/")[1])
        shown = (record.asset_observation for record in instance.fetch_observations(key, limit=PAGE).records)
        if any(one is not None and one.metadata.get("attempt") == dg.TextMetadataValue(attempt) for one in shown):
            continue
        metadata = {"attempt": attempt, "forgotten": sentence}
        instance.report_runless_asset_event(dg.AssetObservation(key, description=sentence, metadata=metadata))
        yield f"Dagster shows beside {attempt}: {sentence}"


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
