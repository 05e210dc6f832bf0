"""Every command of the README's reviewer section does what the line says, in the order they stand there."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dpo_pipeline.cli import commands
from dpo_pipeline.core.home import HOME_VARIABLE

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## For a reviewer")[2].partition("```sh\n")[2].partition("```")[0]
LINES = [shlex.split(line, comments=True)[1:] for line in SECTION.splitlines()]


@pytest.fixture
def shell(built, monkeypatch, tmp_path):
    """Runs a command in a folder of its own; the placeholders of the README stand for things of this home."""
    drop = built.partitions("judgments")[0]
    row = pq.read_table(built.latest("judgments", drop).path / "judgments.parquet").slice(0, 1).to_pylist()[0]
    pair = pq.read_table(built.latest("preference_pairs").path / "pairs.parquet")["pair_id"][0].as_py()
    meant = {
        "champion": "preference_pairs",
        "ID": row["annotator"],
        "DROP/FILE:LINE": f"{drop}/{row['file']}:{row['record_number']}",
        "PAIR": pair,
    }
    monkeypatch.setenv(HOME_VARIABLE, str(built.root))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")  # so that what `reconcile` sets is undone as well
    monkeypatch.chdir(tmp_path)

    def run(*words, answer="y\n"):
        return CliRunner().invoke(commands, [meant.get(word, word) for word in words], input=answer)

    return run


def test_the_reviewers_commands_work_in_the_order_they_are_listed(shell, built, tmp_path):
    assert len(LINES) == 10
    said = {}
    for words in LINES:
        result = shell(*words)
        assert result.exit_code == 0, (words, result.output, result.exception)
        said[words[1]] = result.output
        shutil.rmtree(built.root / "dagster", ignore_errors=True)  # it knows nothing: the tables were made without it
    assert "The public key lies at" in said["keygen"]
    assert "is forgotten." in said["forget"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in {".html", ".jsonl"}) == [
        "audit.html",
        "chain.html",
        "events.jsonl",
    ]
    assert "<h1>INCOMPLETE</h1>" in (tmp_path / "audit.html").read_text()  # without Dagster
    assert (tmp_path / "pairs" / "croissant.json").exists()
    assert [line["event"] for line in built.ledger.lines()][-1] == "forgotten"


def test_a_no_leaves_the_ledger_as_it_was(shell, built):
    before = built.ledger.path.read_bytes()
    result = shell("lineage", "forget", "--annotator", "ID", "--reason", "Ticket 1", answer="n\n")
    assert result.exit_code == 1
    assert "A tombstone leaves this out of drop" in result.output
    assert built.ledger.path.read_bytes() == before


def test_verify_exits_with_one_on_a_fault_and_writes_page_and_json(shell, built, tmp_path):
    path = built.latest("preference_pairs").path / "splits.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    result = shell("lineage", "verify", "preference_pairs", "--html", "audit.html", "--json", "audit.json")
    assert result.exit_code == 1
    assert result.output.startswith("FAIL")
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "FAIL"
    assert re.search(
        r"<h1>FAIL</h1>.*?\d of \d+ checks found a fault. The first: .*?splits.parquet hashes to",
        (tmp_path / "audit.html").read_text(),
        re.DOTALL,
    )


def test_rebuild_says_how_far_it_is(shell):
    result = shell("lineage", "verify", "preference_pairs", "--rebuild")
    assert re.search(r"1 of \d+: judgments/", result.output)
    assert re.search(r"tables come out again, byte for byte  \((\d+) of \1 artifacts are equal", result.output)


def test_of_the_three_ways_exactly_one_must_be_given(shell):
    for words in (["trace"], ["forget", "--annotator", "ID", "--pair", "PAIR"]):
        result = shell("lineage", *words)
        assert result.exit_code == 2
        assert "give exactly one of --annotator, --record and --pair" in result.output
