"""The documentation is under test: commands exist, the reading order is short, contracts are quoted as they stand."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_make_word_of_the_readme_is_a_target_with_a_description():
    words = set(re.findall(r"make ([a-z-]+)", README)) | set(re.findall(r"`(setup[a-z -]+)`", README)[0].split())
    targets = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    assert words <= targets


def test_every_command_of_the_readme_is_known_to_the_command_line():
    from dpo_pipeline.cli import commands

    for line in re.findall(r"\.venv/bin/dpo-pipeline ((?:[a-z]+ ?)+)", README):
        group, path = commands, line.split()
        while path and hasattr(group, "commands"):
            if path[0] not in group.commands:
                pytest.fail(f"dpo-pipeline {line} is in the README and not in the command line")
            group = group.commands[path.pop(0)]


def test_the_reading_order_exists_and_can_be_read_in_an_hour():
    order = re.search(r"Seven files.*?: (.*?)\. Then", README, re.DOTALL)
    files = re.findall(r"`([a-z_/]+\.py)`", order.group(1))
    assert len(files) == 7
    assert sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files) < 1_500


def test_pictures_and_links_lead_somewhere():
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_architecture_quotes_the_import_contracts_by_name():
    text = " ".join((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split())
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    for contract in contracts:
        assert f"{contract['name']}." in text, contract["name"]


def test_the_reference_is_what_the_code_says():
    answer = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
