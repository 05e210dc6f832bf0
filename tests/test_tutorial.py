"""Every command of the tutorial and the runbook is run, in their order, as a reader would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```sh(?P<fails> fails)?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("docs/tutorial.md", "docs/runbook.md")


def blocks(page):
    return [
        (bool(found["fails"]), found["text"]) for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    ]


def test_a_block_that_is_run_starts_no_server_and_names_no_place_of_ours():
    for page in PAGES:
        assert len(blocks(page)) >= 6
        for _, text in blocks(page):
            assert "make ui" not in text
            assert "make review" not in text


def test_every_section_the_tutorial_or_readme_points_to_is_there():
    for page in (*PAGES, "README.md"):
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).exists(), (page, target)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_the_commands_of_both_pages_do_what_they_say(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)  # whole: Python knows its packages by the pyvenv.cfg beside bin
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "DPO_PIPELINE_INBOX"}
    }
    environment |= {"DPO_PIPELINE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    said = []
    for page in PAGES:
        for fails, text in blocks(page):
            script = f"set -euo pipefail\n{'' if 'mine.yaml' in text and 'cat >' in text else PROFILE}{text}"
            answer = subprocess.run(
                ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            said.append(answer.stdout)
            assert (answer.returncode != 0) is fails, f"{page}:\n{text}\n{answer.stdout}\n{answer.stderr}"
    whole = "\n".join(said)
    assert "Nothing in this drop can be used as it is." in whole
    assert "3 records: 3 judgments" in whole
    assert re.search(r"2026-11-own .*complete, 2 files", whole)
    assert (tmp_path / "audit.html").exists()


PROFILE = "[ ! -f mine.yaml ] || export DPO_PIPELINE_PROFILE=mine.yaml\n"
