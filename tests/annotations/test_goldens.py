"""One golden folder per export format: real-looking files, their source, and every row they become.

`UPDATE_GOLDENS=1 pytest tests/annotations/test_goldens.py` rewrites the expected rows; read the diff before keeping it.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"
NOT_FILES = {"source.txt", "expected.json"}


def compact(row):
    """A row without what is the same for all rows of a file, or empty."""
    skipped = {"drop", "file_sha256", "judgment_id", "demonstration_id"}
    result = {name: value for name, value in row.items() if name not in skipped and value not in (None, [])}
    for name in ("prompt", "messages"):
        if name in result:
            result[name] = [f"{turn['role']}: {turn['content']}" for turn in result[name]]
    if "dimensions" in result:
        result["dimensions"] = {one["name"]: one["strength"] for one in result["dimensions"]}
    if "judged_at" in result:
        result["judged_at"] = result["judged_at"].isoformat()
    if "group_id" in result:
        result["group_id"] = result["group_id"][:6]
    return result


def found_in(golden, tmp_path, read_folder):
    folder = tmp_path / "raw" / "files"
    folder.mkdir(parents=True)
    for path in golden.iterdir():
        if path.name not in NOT_FILES:
            shutil.copy(path, folder)
    result = read_folder(folder, tmp_path / "out")
    return {
        "formats": dict(result.outcomes.judgments.facts["formats"]),
        "values_left_out": result.outcomes.judgments.facts["values_left_out"],
        "books": result.books.as_dict(),
        "judgments": [compact(row) for row in result.judgments],
        "demonstrations": [compact(row) for row in result.demonstrations],
        "rejected": [compact(row) for row in result.rejected],
    }


@pytest.mark.parametrize("golden", sorted(GOLDENS.iterdir()), ids=lambda path: path.name)
def test_golden(golden, tmp_path, read_folder):
    assert (golden / "source.txt").read_text().strip()
    found = found_in(golden, tmp_path, read_folder)
    expected = golden / "expected.json"
    if os.environ.get("UPDATE_GOLDENS"):
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(expected.read_text(encoding="utf-8"))
