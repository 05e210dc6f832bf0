"""An inbox on S3: a drop half copied is left alone, a complete one is taken in once, a changed one once more.

The store is moto's server on loopback, spoken to through s3fs as a real one would be: `DPO_PIPELINE_INBOX=s3://...` and
the environment's AWS variables. Skipped where moto or s3fs is not installed.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import dagster as dg
import pytest
from click.testing import CliRunner

from assets.arrivals import new_drops
from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.cli import commands
from dpo_pipeline.core.home import Home
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.settings import PipelineSettings
from resources.tracking import NoTracking

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

pytestmark = pytest.mark.slow

INBOX = "s3://annotations/inbox"
RECORDS = [
    {"prompt": f"How do I reset model {number}?", "chosen": f"Hold button {number}.", "rejected": "No idea, ask them."}
    for number in range(3)
]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The bucket, as whoever delivers sees it; this process's environment leads there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = f"http://127.0.0.1:{port}"
    with (tmp_path / "moto.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    variables = {
        "AWS_ENDPOINT_URL": at,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-store",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(at, timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "moto.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("annotations")
        yield files
    finally:
        server.terminate()
        server.wait(timeout=30)


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_a_drop_arrives_on_s3_file_by_file_and_is_taken_in_when_it_is_complete(store, tmp_path, monkeypatch):
    home = Home(tmp_path / "home", INBOX)
    resources = {
        "settings": PipelineSettings(),
        "home": ArtifactHome(folder=str(home.root), inbox=INBOX),
        "tracking": NoTracking(),
        "gpu": Gpu(launcher="inline"),
    }
    cursor = None

    def tick():
        nonlocal cursor
        given = {name: resources[name] for name in ("home", "settings")}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance=instance, cursor=cursor, resources=given) as context,
        ):
            answer = new_drops(context)
        if isinstance(answer, dg.SkipReason):
            return answer.skip_message
        cursor = answer.cursor
        return [request.partition_key for request in answer.run_requests]

    def take_in():
        with dg.DagsterInstance.ephemeral() as instance:
            assert materialize(build_definitions(resources), instance, home=home, job="ingest")

    assert tick() == f"nothing new in {INBOX}"
    store.pipe_file("annotations/inbox/may/one.jsonl", lines(RECORDS[:1]))
    said = tick()
    assert said.startswith(f"nothing new in {INBOX}; 'may' waits: its last change was ")
    assert said.endswith("and _COMPLETE is not there")
    take_in()
    assert home.partitions("raw_annotations") == [], "half a delivery is never read"

    upload = store.open("annotations/inbox/may/two.jsonl", "wb")
    upload.write(lines(RECORDS[1:]))
    store.touch("annotations/inbox/june/_COMPLETE")
    assert "'june' waits: it holds no files" in tick()
    upload.close()
    store.touch("annotations/inbox/may/_COMPLETE")
    assert tick() == ["may"]
    assert "nothing new" in tick(), "asked for once"
    take_in()
    raw = home.latest("raw_annotations", "may")
    assert {path.name: path.read_bytes() for path in (raw.path / "files").iterdir()} == {
        "one.jsonl": lines(RECORDS[:1]),
        "two.jsonl": lines(RECORDS[1:]),
    }
    assert home.latest("judgments", "may").counts["judgments"] == 3

    store.pipe_file("annotations/inbox/may/two.jsonl", lines(RECORDS[1:2]))
    assert tick() == ["may"]
    take_in()
    assert home.latest("judgments", "may").counts["judgments"] == 2
    assert raw.verify() == [], "the earlier version is kept"

    monkeypatch.setenv("DPO_PIPELINE_HOME", str(home.root))
    monkeypatch.setenv("DPO_PIPELINE_INBOX", INBOX)
    told = CliRunner().invoke(commands, ["drop", "list"])
    assert told.exit_code == 0, told.output
    assert "version 2, in use" in told.output
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in home.ledger.path.read_text()


def test_a_store_that_is_away_is_named_with_what_to_look_at(store, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("DPO_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DPO_PIPELINE_INBOX", INBOX)
    told = CliRunner().invoke(commands, ["drop", "list"])
    assert told.exit_code != 0
    assert f"the inbox {INBOX} cannot be listed" in str(told.exception or told.output)
