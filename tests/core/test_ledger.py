"""The ledger: append-only, chained, safe across processes, honest about damage."""

import json
import subprocess
import sys

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


def test_a_last_line_cut_off_is_found_with_both_hashes_and_nothing_is_written_over_it(ledger):
    lines = fill(ledger).path.read_text().splitlines()
    ledger.path.write_text("\n".join(lines[:-1]) + "\n")
    [fault] = ledger.verify()
    assert f"ends with seq 2, hash {json.loads(lines[2])['hash']}" in fault
    assert f"says seq 3, hash {json.loads(lines[3])['hash']}" in fault
    with pytest.raises(LedgerError, match="Restore the ledger"):
        ledger.append("finished")


def test_a_head_one_line_behind_is_a_crash_and_no_fault_a_missing_one_is(ledger):
    fill(ledger, 2)
    behind = ledger.head_path.read_text()
    ledger.append("finished")
    ledger.head_path.write_text(behind)
    assert ledger.verify() == []
    ledger.head_path.unlink()
    assert "head.json is missing" in ledger.verify()[0]
