"""The ledger: append-only, chained, safe across processes, honest about damage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_pipeline.core.errors import LedgerError
from dpo_pipeline.core.ledger import GENESIS, Ledger


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger" / "ledger.jsonl")


def fill(ledger, count=4):
    for number in range(count):
        ledger.append("finished", asset="pairs", number=number)
    return ledger


def test_each_line_follows_the_one_before(ledger):
    lines = list(fill(ledger).lines())
    assert [line["seq"] for line in lines] == [0, 1, 2, 3]
    assert [line["previous"] for line in lines] == [GENESIS, *[line["hash"] for line in lines[:3]]]
    assert ledger.verify() == []


def test_an_edited_line_is_named_with_both_hashes(ledger):
    lines = fill(ledger).path.read_text().splitlines()
    edited = json.loads(lines[1]) | {"asset": "others"}
    ledger.path.write_text("\n".join([lines[0], json.dumps(edited), *lines[2:]]) + "\n")
    [fault] = ledger.verify()
    assert "line 2 hashes to" in fault
    assert f"it claims {edited['hash']}" in fault


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_dropped_line_breaks_the_chain_where_it_stood(ledger, dropped):
    lines = fill(ledger).path.read_text().splitlines()
    ledger.path.write_text("\n".join(lines[:dropped] + lines[dropped + 1 :]) + "\n")
    assert f"line {dropped + 1} follows" in ledger.verify()[0]


def test_a_torn_tail_was_never_acknowledged_and_is_cut_by_the_next_append(ledger):
    fill(ledger, 2)
    with ledger.path.open("ab") as stream:
        stream.write(b'{"seq":2,"event":"fin')
    assert [line["seq"] for line in ledger.lines()] == [0, 1]
    assert ledger.append("finished")["seq"] == 2
    assert ledger.verify() == []


@pytest.mark.parametrize("torn", ["", '{"seq": 9' * 50])
def test_a_line_of_any_length_is_followed_and_a_torn_one_of_any_length_cut(ledger, monkeypatch, torn):
    monkeypatch.setattr("dpo_pipeline.core.ledger.TAIL_BYTES", 16)
    fill(ledger, 2)
    ledger.append("failed", reason="x" * 1_000)
    with ledger.path.open("a") as stream:
        stream.write(torn)
    assert ledger.append("e")["seq"] == 3
    assert [line["seq"] for line in ledger.lines()] == [0, 1, 2, 3]
    assert ledger.verify() == []


def test_a_line_that_is_not_json_is_an_error_that_names_it(ledger):
    fill(ledger, 1)
    ledger.path.write_text(ledger.path.read_text() + "garbage\n")
    with pytest.raises(LedgerError, match="line 2 is not JSON"):
        list(ledger.lines())
    with pytest.raises(LedgerError, match="last line"):
        ledger.append("finished")


def test_processes_append_at_the_same_time_without_losing_a_line(ledger):
    code = (
        "import sys; from pathlib import Path; from dpo_pipeline.core.ledger import Ledger\n"
        "for n in range(25): Ledger(Path(sys.argv[1])).append('started', n=n)"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(ledger.path)]) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    assert len(list(ledger.lines())) == 75
    assert ledger.verify() == []


def test_a_ledger_cut_off_at_its_end_is_found_by_its_head(ledger):
    lines = fill(ledger).path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(lines[:-1]))
    assert ledger.verify() == [f"{ledger.path} has 3 lines, its head speaks of 4: it was cut off at its end"]
    with pytest.raises(LedgerError, match="Restore the ledger"):
        ledger.append("finished")


def test_a_head_that_lags_by_a_crash_is_no_fault_and_one_of_another_ledger_is(ledger):
    fill(ledger, 2)
    head = ledger.head_path.read_text()
    fill(ledger, 1)
    ledger.head_path.write_text(head)
    assert ledger.verify() == []
    ledger.head_path.write_text('{"lines": 2, "hash": "ab"}')
    assert "the head says ab" in ledger.verify()[0]


@pytest.mark.parametrize("line", ["[]", "3", '{"seq": 1}', "[" * 20_000])
def test_a_ledger_line_of_another_shape_is_a_named_fault(ledger, line):
    fill(ledger, 1)
    ledger.path.write_text(ledger.path.read_text() + line + "\n")
    assert "line 2 is not" in ledger.verify()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads files by their descriptors")
def test_after_a_power_cut_at_any_line_the_ledger_can_be_written_on(ledger, monkeypatch):
    """A power cut keeps of each file what was synced, under whatever name the file has by then."""
    synced, sync = {}, os.fsync

    def noting(number):
        sync(number)
        synced[os.fstat(number).st_ino] = Path(f"/proc/self/fd/{number}").read_bytes()

    monkeypatch.setattr(os, "fsync", noting)
    for count in range(1, 4):
        ledger.append("finished", number=count)
        for path in ledger.path.parent.iterdir():
            path.write_bytes(synced.get(path.stat().st_ino, b""))
        assert ledger.verify() == []
        assert ledger.head().lines == len(list(ledger.lines())) == count
