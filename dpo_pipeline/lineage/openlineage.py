"""The ledger as OpenLineage events, one JSON object a line: what other catalogues read (openlineage.io/spec, 2-0-2).

One START per attempt and one COMPLETE, FAIL or ABORT for its end, with the original times. Ids are derived from the
attempts' keys, so the same ledger gives the same events. It is a view for tools; the evidence stays the ledger.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dpo_pipeline
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home

NAMESPACE = "dpo-pipeline"
PRODUCER = f"urn:dpo-pipeline:{dpo_pipeline.__version__}"
SPEC = "https://openlineage.io/spec"
EVENT_SCHEMA = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
ENDS = {"finished": "COMPLETE", "failed": "FAIL", "killed": "ABORT"}
FACET_VERSIONS = {
    "ParentRunFacet": "1-2-0",
    "ErrorMessageRunFacet": "1-0-1",
    "TagsRunFacet": "1-0-0",
    "JobTypeJobFacet": "2-0-4",
    "DatasetVersionDatasetFacet": "1-0-1",
    "SchemaDatasetFacet": "1-2-0",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
}
"""The version of each facet's schema that is written."""


def run_events(home: Home) -> Iterator[dict[str, Any]]:
    """Every attempt of a home, in the order of the ledger."""
    started: dict[str, Mapping[str, Any]] = {}
    for line in home.ledger.lines():
        key = line.get("attempt")
        if line["event"] == "started":
            started[str(key)] = line
            yield _event("START", line, line, None)
        elif line["event"] in ENDS and str(key) in started:
            yield _event(ENDS[line["event"]], started[str(key)], line, _artifact(home, line))


def run_id_of(attempt: str) -> str:
    """The id OpenLineage knows an attempt by: a name-based UUID of its key."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dpo-pipeline:attempt:{attempt}"))


def _event(kind: str, start: Mapping[str, Any], line: Mapping[str, Any], made: Artifact | None) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": line["time"],
        "run": {"runId": run_id_of(start["attempt"]), "facets": dict(_run_facets(start, line))},
        "job": {"namespace": NAMESPACE, "name": start["asset"], "facets": {"jobType": _job_type()}},
        "inputs": [_input(parent) for parent in start.get("parents", [])],
        "outputs": [_output(start, made)],
        "producer": PRODUCER,
        "schemaURL": EVENT_SCHEMA,
    }


def _run_facets(start: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if dagster_run := start.get("dagster_run"):
        job = {"namespace": NAMESPACE, "name": "dagster"}
        yield "parent", _facet("ParentRunFacet", run={"runId": dagster_run}, job=job)
    code = start.get("code") or {}
    tags = {
        "attempt": start["attempt"],
        "partition": start.get("partition"),
        "profile": start.get("profile"),
        "recipe": start.get("recipe"),
        "code_version": start.get("code_version"),
        "git_commit": code.get("git_commit"),
        "source_sha256": code.get("source_sha256"),
        "ledger_line": line["seq"] + 1,
        "ledger_hash": line["hash"],
    }
    said = [{"key": name, "value": str(value), "source": "ledger"} for name, value in tags.items() if value is not None]
    yield "tags", _facet("TagsRunFacet", tags=said)
    if reason := line.get("reason"):
        yield "errorMessage", _facet("ErrorMessageRunFacet", message=str(reason), programmingLanguage="Python")


def _job_type() -> dict[str, Any]:
    return _facet("JobTypeJobFacet", processingType="BATCH", integration="DAGSTER", jobType="ASSET")


def _input(parent: Mapping[str, Any]) -> dict[str, Any]:
    version = _facet("DatasetVersionDatasetFacet", datasetVersion=parent["digest"])
    return {"namespace": NAMESPACE, "name": parent["role"], "facets": {"version": version}}


def _output(start: Mapping[str, Any], made: Artifact | None) -> dict[str, Any]:
    name = start["asset"] if start.get("partition") is None else f"{start['asset']}/{start['partition']}"
    found: dict[str, Any] = {"namespace": NAMESPACE, "name": name, "facets": {}}
    if made is None:
        return found
    files = made.manifest["files"]
    sizes = {"size": sum(entry["size"] for entry in files), "fileCount": len(files)}
    found["facets"]["version"] = _facet("DatasetVersionDatasetFacet", datasetVersion=made.path.name)
    table = made.path / f"{made.kind}.parquet"
    table = made.path / "pairs.parquet" if made.kind == "preference_pairs" else table
    if table.is_file():
        from dpo_pipeline.core.tables import columns_of, row_count

        sizes["rowCount"] = row_count(table)
        found["facets"]["schema"] = _facet("SchemaDatasetFacet", fields=list(_columns(columns_of(table))))
    found["outputFacets"] = {"outputStatistics": _facet("OutputStatisticsOutputDatasetFacet", **sizes)}
    return found


def _columns(columns: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    for place, column in enumerate(columns, start=1):
        described = {"description": column["description"]} if column["description"] else {}
        yield {"name": column["name"], "type": column["type"], **described, "ordinal_position": place}


def _facet(name: str, **fields: Any) -> dict[str, Any]:
    url = f"{SPEC}/facets/{FACET_VERSIONS[name]}/{name}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": url, **fields}


def _artifact(home: Home, line: Mapping[str, Any]) -> Artifact | None:
    """What an attempt made, if its folder is still there; the events of a lost one lack sizes and columns."""
    try:
        return home.store.get(line["asset"], line["artifact"]) if line.get("artifact") else None
    except ArtifactError:
        return None
