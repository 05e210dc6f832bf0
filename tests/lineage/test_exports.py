"""What is exported is what the formats' own readers take: OpenLineage's classes, mlcroissant, the hub, `datasets`."""

import enum
import json
import re
import types
import typing
import uuid
from datetime import datetime

import attr
import pyarrow.parquet as pq
import pytest
from openlineage.client import facet_v2
from openlineage.client.generated import base

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.lineage.exports import export_dataset, export_events, export_model_card
from dpo_pipeline.lineage.openlineage import EVENT_SCHEMA, run_events
from dpo_pipeline.release.settings import ReleaseSettings

CLASSES = {
    "ParentRunFacet": facet_v2.parent_run.ParentRunFacet,
    "ErrorMessageRunFacet": facet_v2.error_message_run.ErrorMessageRunFacet,
    "TagsRunFacet": facet_v2.tags_run.TagsRunFacet,
    "JobTypeJobFacet": facet_v2.job_type_job.JobTypeJobFacet,
    "DatasetVersionDatasetFacet": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "SchemaDatasetFacet": facet_v2.schema_dataset.SchemaDatasetFacet,
    "OutputStatisticsOutputDatasetFacet": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def facets_of(event):
    yield from event["run"]["facets"].values()
    yield from event["job"]["facets"].values()
    for dataset in event["inputs"] + event["outputs"]:
        yield from dataset["facets"].values()
        yield from dataset.get("outputFacets", {}).values()


@pytest.fixture(scope="module")
def eventful(built_once, tmp_path_factory):
    """The events of a home in which also one attempt failed, one was killed and one is open."""
    import shutil

    from dpo_pipeline.core.home import Home

    shutil.copytree(built_once.root, tmp_path_factory.mktemp("exports") / "home")
    home = Home(tmp_path_factory.getbasetemp() / "exports0" / "home")
    for end in ("failed", "killed", None):
        same = {"attempt": f"run-{end}/dpo_checkpoint/-/0", "asset": "dpo_checkpoint", "partition": None}
        home.ledger.append("started", **same, parents=[], dagster_run=str(uuid.uuid4()), code={"git_commit": "c"})
        if end:
            home.ledger.append(end, **same, reason="the loss is not finite")
    return home, list(run_events(home))


def test_each_attempt_starts_and_ends_once_with_its_own_times(eventful):
    home, events = eventful
    by_run = {}
    for event in events:
        by_run.setdefault(event["run"]["runId"], []).append(event["eventType"])
    ends = sorted({tuple(kinds) for kinds in by_run.values()})
    assert ends == [("START",), ("START", "ABORT"), ("START", "COMPLETE"), ("START", "FAIL")]
    assert [event["eventTime"] for event in events] == [line["time"] for line in home.ledger.lines()]


def test_events_and_facets_are_what_openlineages_own_classes_take(eventful):
    _, events = eventful
    seen = set()
    for event in events:
        assert event["schemaURL"] == EVENT_SCHEMA == base.RunEvent._get_schema()
        assert {"eventType", "eventTime", "run", "job", "inputs", "outputs", "producer", "schemaURL"} == set(event)
        base.RunEvent(
            eventTime=event["eventTime"],
            producer=event["producer"],
            run=base.Run(event["run"]["runId"]),
            job=base.Job(event["job"]["namespace"], event["job"]["name"]),
            eventType=base.EventType(event["eventType"]),
        )
        for facet in facets_of(event):
            fields = dict(facet)
            name = fields["_schemaURL"].rpartition("/")[2]
            seen.add(name)
            assert fields.pop("_schemaURL") == CLASSES[name]._get_schema()
            assert fields.pop("_producer") == event["producer"]
            CLASSES[name](**fields)
    assert seen == set(CLASSES)


def misfits(value, hint, path):
    """Where a value is not what a class generated from the JSON schema says: fields, their types, enums, formats.

    The schema itself stands in no package; these classes are made from it, field by field. They take any value for any
    field when called, so their type hints are gone through here.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [list(misfits(value, each, path)) for each in inner]
        yield from [] if [] in kinds else kinds[0]
    elif origin is list:
        places = enumerate(value) if isinstance(value, list) else ()
        yield from (fault for at, each in places for fault in misfits(each, inner[0], f"{path}[{at}]"))
        yield from [] if isinstance(value, list) else [f"{path} is no list"]
    elif origin is dict:
        for name, each in value.items():
            facet = CLASSES[each["_schemaURL"].rpartition("/")[2]] if "_schemaURL" in each else inner[1]
            if inner[1] in facet.__mro__ or not attr.has(inner[1]):
                yield from misfits(each, facet, f"{path}.{name}")
            else:
                yield f"{path}.{name} is a {facet.__name__}, no {inner[1].__name__}"
    elif attr.has(hint):
        yield from _misfits_of_object(value, hint, path)
    else:
        yield from _misfits_of_plain(value, hint, path)


def _misfits_of_plain(value, hint, path):
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in {member.value for member in hint}:
            yield f"{path} is {value!r}, none of {hint.__name__}"
    elif hint is not typing.Any and not (isinstance(value, hint) and (hint is bool or type(value) is not bool)):
        yield f"{path} is {value!r}, no {hint.__name__}"


def _misfits_of_object(value, hint, path):
    hints, fields = typing.get_type_hints(hint), {one.name: one for one in attr.fields(hint)}
    if not isinstance(value, dict):
        yield f"{path} is no object"
        return
    yield from (f"{path} has {name}, which {hint.__name__} lacks" for name in value.keys() - fields.keys())
    for name, field in fields.items():
        if name in value:
            yield from misfits(value[name], hints[name], f"{path}.{name}")
        elif field.default is attr.NOTHING or name in {"producer", "schemaURL", "_producer", "_schemaURL"}:
            yield f"{path} lacks {name}"
    for name in {"producer", "schemaURL", "_producer", "_schemaURL"} & value.keys():
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", str(value[name])):
            yield f"{path}.{name} is {value[name]!r}, no URI"


def formats_of(event):
    """Of the formats the schema names those that the classes do not check by their types."""
    if str(uuid.UUID(event["run"]["runId"])) != event["run"]["runId"]:
        yield "the run's id is no UUID"
    if datetime.fromisoformat(event["eventTime"]).tzinfo is None:
        yield "the event's time names no zone"


def test_every_field_of_every_event_is_of_the_type_the_schema_gives_it(eventful):
    _, events = eventful
    assert [fault for event in events for fault in (*misfits(event, base.RunEvent, "event"), *formats_of(event))] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda event: event["run"].pop("runId"), "event.run lacks runId"),
        (lambda event: event.update(eventType="DONE"), "event.eventType is 'DONE', none of EventType"),
        (lambda event: event.update(extra=1), "event has extra, which RunEvent lacks"),
        (lambda event: event["job"].update(name=5), "event.job.name is 5, no str"),
        (lambda event: event.update(producer="us"), "event.producer is 'us', no URI"),
        (lambda event: event["inputs"].append("x"), "is no object"),
        (lambda event: event["run"]["facets"]["tags"]["tags"][0].pop("key"), "event.run.facets.tags.tags[0] lacks key"),
        (lambda event: event["run"]["facets"]["tags"]["tags"][0].update(value=1), "tags[0].value is 1, no str"),
        (
            lambda event: event["job"]["facets"].update(x=event["run"]["facets"]["tags"]),
            "is a TagsRunFacet, no JobFacet",
        ),
    ],
)
def test_an_event_that_does_not_fit_the_schema_is_found(eventful, change, fault):
    _, events = eventful
    event = json.loads(json.dumps(events[0]))
    change(event)
    assert any(fault in found for found in misfits(event, base.RunEvent, "event"))


def test_inputs_and_outputs_are_named_like_assets_and_bear_their_digests(eventful):
    home, events = eventful
    made = next(
        event for event in events if event["eventType"] == "COMPLETE" and event["job"]["name"] == "preference_pairs"
    )
    pairs = home.latest("preference_pairs")
    [output] = made["outputs"]
    assert output["name"] == "preference_pairs"
    assert output["facets"]["version"]["datasetVersion"] == pairs.digest
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == pairs.counts["pairs"]
    assert {one["name"]: one["facets"]["version"]["datasetVersion"] for one in made["inputs"]} == {
        parent.role: parent.digest for parent in pairs.parents
    }


def test_the_file_holds_one_event_a_line(eventful, tmp_path):
    home, events = eventful
    assert export_events(home, tmp_path / "events.jsonl") == len(events)
    assert [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()] == events


@pytest.fixture(scope="module")
def dataset(built_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "pairs"
    settings = ReleaseSettings(name="Fernhill", dataset_license="cc-by-4.0", languages=("en", "de"))
    assert (
        export_dataset(built_once, "preference_pairs", folder, release=settings)
        == built_once.latest("preference_pairs").counts["pairs"]
    )
    return folder


def test_each_split_holds_its_rows_and_nothing_that_leads_to_an_annotator(built_once, dataset):
    pairs = pq.read_table(built_once.latest("preference_pairs").path / "pairs.parquet").drop_columns(
        ["annotators", "judgment_ids"]
    )
    for split in ("train", "held_out"):
        rows = pq.read_table(dataset / "data" / f"{split}.parquet")
        assert rows.to_pylist() == [row for row in pairs.to_pylist() if row["split"] == split]
        assert rows.schema.metadata == pairs.schema.metadata
    said = "".join(path.read_text() for path in (dataset / "README.md", dataset / "croissant.json"))
    annotators = pq.read_table(built_once.latest("preference_pairs").path / "pairs.parquet")["annotators"].to_pylist()
    assert not [name for names in annotators for name in names if name in said]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissants_own_reader_takes_the_description_and_reads_the_rows(dataset):
    import mlcroissant

    described = mlcroissant.Dataset(jsonld=dataset / "croissant.json")
    assert not described.metadata.ctx.issues.errors
    assert not described.metadata.ctx.issues.warnings
    first = next(iter(described.records(record_set="held_out")))
    row = pq.read_table(dataset / "data" / "held_out.parquet").slice(0, 1).to_pylist()[0]
    assert first["held_out/chosen"].decode() == row["chosen"]
    assert [turn["held_out/prompt/content"].decode() for turn in first["held_out/prompt"]] == [
        turn["content"] for turn in row["prompt"]
    ]


def test_the_hubs_reader_takes_the_card_and_datasets_loads_both_splits(dataset, tmp_path):
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(dataset / "README.md")
    assert "`list of {role: string, content: string}`" in card.text
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en", "de"])
    assert "# Fernhill: preference pairs" in card.text
    loaded = load_dataset(str(dataset), cache_dir=str(tmp_path))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {
        split: pq.read_metadata(dataset / "data" / f"{split}.parquet").num_rows for split in ("train", "held_out")
    }


def test_a_folder_with_something_in_it_and_a_subject_without_pairs_are_refused(built_once, dataset, tmp_path):
    with pytest.raises(InputError, match="is not empty"):
        export_dataset(built_once, "preference_pairs", dataset, release=ReleaseSettings())
    with pytest.raises(ArtifactError, match="no preference_pairs stand behind"):
        drop = built_once.partitions("judgments")[0]
        export_dataset(built_once, f"judgments/{drop}", tmp_path / "new", release=ReleaseSettings())


def test_the_model_card_is_the_newest_releases_unless_that_was_altered(home, published, tmp_path):
    with home.store.staging() as folder:
        (folder / "model").mkdir()
        (folder / "model" / "README.md").write_text("# Fernhill")
        release = published(home, Recipe("release", "1", {}, ()), folder, Outcome())
    assert export_model_card(home, tmp_path / "card.md") == release.digest
    assert (tmp_path / "card.md").read_text() == "# Fernhill"
    (release.path / "model" / "README.md").write_text("# Nothing to see here")
    with pytest.raises(ArtifactError, match="the release is not what was published"):
        export_model_card(home, tmp_path / "other.md")
    assert not (tmp_path / "other.md").exists()
