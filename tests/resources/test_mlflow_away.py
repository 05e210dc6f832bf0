"""MLflow refuses, hangs, answers 500 or is slow: work goes on in bounded time, nothing is lost, it is told later."""

import http.server
import json
import socket
import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from dpo_pipeline.core.errors import TrackingError
from dpo_pipeline.core.home import Home
from resources import mlflow_client, mlflow_tracking
from resources.mlflow_client import CLIENT_ENVIRONMENT, BoundedClient, OutOfPatienceError
from resources.mlflow_reconcile import reconcile_mlflow
from resources.mlflow_tracking import MlflowTracking
from resources.spool import Spool
from tests.resources.worlds import World

TIMEOUT_SECONDS = 1


@contextmanager
def refusing():
    """Nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def hanging():
    """Accepts, and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def answering(status, body, seconds=0.0):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(seconds)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def failing():
    return answering(500, {"error_code": "INTERNAL_ERROR", "message": "the disk of the server is full"})


def slow():
    """Answers rightly, each time a little before the timeout: only the sum of all calls is too much."""
    found = {"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}, "runs": [], "run": {"info": {}}}
    return answering(200, found, seconds=0.3)


def garbled():
    return answering(200, ["no", "MLflow"])


SERVERS = {"refusing": refusing, "hanging": hanging, "answering 500": failing, "slow": slow, "garbled": garbled}

WHY = {
    "refusing": "Connection refused",
    "hanging": "Read timed out",
    "answering 500": "500 error responses",
    "slow": "MLflow took more than",
    "garbled": "",
}


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setitem(CLIENT_ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
    monkeypatch.setattr(mlflow_client, "SERVER_SECONDS", 0.6)


@pytest.fixture
def lone(home, mlflow_tables):
    """A world whose MLflow is elsewhere; the tables of an embedded one lie ready for later."""
    mlflow_tables(home)
    world = World.__new__(World)
    world.home, world.warnings = home, []
    return world


@pytest.mark.parametrize("server", SERVERS)
def test_the_work_goes_on_and_all_is_told_when_mlflow_is_back(server, lone, short_patience, tmp_path):
    with SERVERS[server]() as uri:
        lone.tracking = MlflowTracking(uri=uri)
        start = lone.start(uuid.uuid4().hex)
        run = lone.begin(start)
        with run.following():
            for step in (1, 2):
                Spool.of(lone.home, start["attempt"]).add(step, {"loss": 1 / step})
        artifact = lone.publish()
        run.end(lone.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 1.0}), artifact)
        assert run.url is None
        assert WHY[server] in run.trouble, run.trouble
        [warning] = lone.warnings
        assert warning.startswith("MLflow does not take this attempt now; ledger and spool keep it")
    there = World(lone.home, "")
    assert reconcile_mlflow(lone.home, there.tracking).sentences == [f"MLflow was told of {start['attempt']}: FINISHED"]
    [told] = there.runs(start["attempt"])
    assert (told.info.status, told.data.metrics["loss"], told.data.metrics["steps"]) == ("FINISHED", 0.5, 3)


def test_calls_are_bounded_in_number_and_one_by_one(lone, short_patience, monkeypatch):
    """Hanging: one call waits for its timeout, then none is made for a while, by this attempt or the next."""
    calls = []
    real = BoundedClient.__getattr__
    monkeypatch.setattr(BoundedClient, "__getattr__", lambda self, name: calls.append(name) or real(self, name))
    with hanging() as uri:
        lone.tracking = MlflowTracking(uri=uri)
        for _ in range(3):
            start = lone.start(uuid.uuid4().hex)
            run = lone.begin(start)
            run.end(lone.line(start, "failed", reason="x"), None)
    assert calls == ["get_experiment_by_name"]
    assert [warning.rpartition(": ")[2] for warning in lone.warnings[1:]] == ["it did not answer a moment ago"] * 2


def test_a_slow_server_gets_no_further_call_once_patience_is_spent():
    class Slow:
        calls = 0

        def work(self):
            self.calls += 1
            time.sleep(0.05)

    slow = Slow()
    client = BoundedClient(slow, 0.12)
    with pytest.raises(OutOfPatienceError, match=r"MLflow took more than 0 s"):
        for _ in range(10):
            client.work()
    assert slow.calls == 3
    client.again(0.12).work()
    assert slow.calls == 4


def test_a_server_that_comes_back_during_the_work_is_told_during_the_work(world, monkeypatch):
    """The thread that follows goes on trying: three days of training are not invisible for a minute's outage."""
    monkeypatch.setattr(mlflow_tracking, "FLUSH_SECONDS", 0.02)
    real, tries = mlflow_tracking.open_run, []

    def away_at_first(*arguments):
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no route")
        return real(*arguments)

    monkeypatch.setattr(mlflow_tracking, "open_run", away_at_first)
    start = world.start(uuid.uuid4().hex)
    world.warnings.clear()
    run = world.begin(start)
    assert run.url is None
    with run.following():
        Spool.of(world.home, start["attempt"]).add(1, {"loss": 0.5})
        for _ in range(1_000):
            if run.url is not None and world.client.get_run(run.run_id).data.metrics:
                break
            time.sleep(0.02)
        assert world.client.get_run(run.run_id).data.metrics == {"loss": 0.5}
    run.end(world.line(start, "failed", reason="enough"), None)
    assert world.client.get_run(run.run_id).info.status == "FAILED"
    assert len(world.warnings) == 1


def test_where_the_profile_insists_the_attempt_does_not_begin(lone, short_patience):
    with refusing() as uri:
        lone.tracking = MlflowTracking(uri=uri)
        with pytest.raises(TrackingError) as caught:
            lone.begin(lone.start("a"), required=True)
        with pytest.raises(TrackingError, match=r"cannot be reached"):
            lone.begin(lone.start("b"), required=True)
    assert str(caught.value).startswith(f"MLflow at {uri} cannot be reached: ")
    assert "Expected: MLflow, because the profile says tracking.when_away: refuse." in str(caught.value)
    assert "Start it, or set tracking.when_away to buffer: then it is told later." in str(caught.value)


def test_a_torn_or_garbled_line_of_a_spool_costs_only_itself(tmp_path):
    spool = Spool(tmp_path / "spool.jsonl")
    spool.add(1, {"loss": 1.0})
    with spool.path.open("ab") as stream:
        stream.write(b"\0\0\0\n[1]\n")
    spool.note({"device": "cpu"})
    spool.add(2, {"loss": 0.5})
    with spool.path.open("ab") as stream:
        stream.write(b'{"step": 3, "loss": 0.')
    points, offset = spool.read()
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]
    with spool.path.open("ab") as stream:
        stream.write(b'25, "time": 1.0}\n')
    assert [(point.step, point.value) for point in spool.read(offset)[0]] == [(3, 0.25)]
    assert spool.notes() == {"device": "cpu"}
    assert spool.curves() == {"loss": {"points": 3, "step": 3, "value": 0.25}}


def test_spools_of_different_attempts_are_different_files(tmp_path):
    home = Home(tmp_path)
    keys = ["r/judgments/a-b/0", "r/judgments/a/0", "r/judgments/-/0", "r/judgments/a-b/1"]
    assert len({Spool.of(home, key).path for key in keys}) == 4
