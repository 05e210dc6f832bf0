"""A year of a home in small: a first drop, a champion, a second drop, a training that starts from that champion.

As an operator does it: commands in processes of their own, children for the trainings, MLflow and Dagster on disk.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import current_champion
from dpo_pipeline.profiles import FOLDER
from dpo_pipeline.samples.scenario import generate_scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

CHANGES = {
    "least_pairs": 10,
    "model": {"scratch": {"vocabulary_size": 600, "hidden_size": 32, "intermediate_size": 64, "layer_count": 1}},
    "sft": {"epochs": 1},
    "dpo": {"epochs": 1},
    "evaluation": {"generation_count": 12, "max_new_tokens": 24, "bootstrap_samples": 200},
    "operation": {"start_from": "champion"},
}


class Office:
    """A home, a delivery not yet in its inbox, and the commands."""

    def __init__(self, root):
        self.home = Home(root / "home")
        generate_scenario(root / "scenario", seed=3, scale=0.06)
        self.first, self.second = sorted(path.name for path in (root / "scenario").iterdir())
        self.scenario = root / "scenario"
        profile = yaml.safe_load((FOLDER / "demo.yaml").read_text())
        for section, values in CHANGES.items():
            old = profile.get(section)
            profile[section] = {**old, **values} if isinstance(old, dict) else values
        profile["model"]["scratch"] = {**CHANGES["model"]["scratch"], "head_count": 4}
        (root / "small.yaml").write_text(yaml.safe_dump(profile))
        self.profile = str(root / "small.yaml")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
            "DPO_PIPELINE_HOME": str(self.home.root),
            "DPO_PIPELINE_PROFILE": self.profile,
            "OMP_NUM_THREADS": "1",
        }

    def deliver(self, drop):
        shutil.copytree(self.scenario / drop, self.home.inbox / drop)

    def type(self, *words):
        """A command typed in a terminal; all it said."""
        command = {"materialize": [sys.executable, "-m", "assets.materialize"]}.get(
            words[0], [str(Path(sys.prefix) / "bin" / "dpo-pipeline"), words[0]]
        )
        done = subprocess.run([*command, *words[1:]], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr


def behind(artifact):
    return {parent.role: parent.digest for parent in artifact.parents}


def test_from_the_first_drop_to_a_training_that_starts_from_the_champion_it_made(tmp_path):
    office = Office(tmp_path)
    home = office.home
    office.deliver(office.first)
    words = office.type("materialize", "everything")
    assert "Going on from the champion" not in words
    assert "champion" not in behind(home.latest("sft_checkpoint"))
    first = home.latest("dpo_checkpoint").digest
    if current_champion(home) is None:
        office.type("champion", "promote", "--reason", "the first one in the shop", "--profile", office.profile)
    assert current_champion(home).digest == first

    assert "Going on from the champion" not in office.type("materialize", "everything")
    assert home.latest("dpo_checkpoint").digest == first, "to be champion sets off no training by itself"

    office.deliver(office.second)
    words = office.type("materialize", "everything")
    assert f"Going on from the champion {first[:12]}" in words
    sft, dpo, report = (home.latest(asset) for asset in ("sft_checkpoint", "dpo_checkpoint", "evaluation_report"))
    assert behind(sft)["champion"] == first
    assert dpo.digest != first
    assert behind(dpo)["sft_checkpoint"] == sft.digest
    assert behind(report)["dpo_checkpoint"] == dpo.digest
    assert behind(report)["champion"] == first, "the challenger is held up against the champion it started from"
    found = json.loads((report.path / "report.json").read_text())
    assert set(found["models"]) == {"base", "sft", "dpo", "champion"}
    decision = behind(home.latest("champion"))
    assert report.digest in decision.values()

    chain, audit = tmp_path / "chain.html", tmp_path / "audit.html"
    office.type("lineage", "show", "sft_checkpoint", "--html", str(chain))
    assert first[:12] in chain.read_text()
    said = office.type("lineage", "verify", "evaluation_report", "--html", str(audit))
    assert "FAIL" not in said
    again = office.type("lineage", "verify", "sft_checkpoint", "--rebuild")
    assert "FAIL" not in again
    assert "4 of 4 artifacts are equal, repeated on this machine" in again, (
        "this SFT, and the three behind its champion"
    )
    page = audit.read_text()
    assert first[:12] in page
    page = (report.path / "report.html").read_text()
    assert "against champion" in page
    assert f"sft went on from the champion {first[:12]} of its day" in page
    assert sft.facts["started_from"] == f"champion {first}"
    assert f"SFT went on from the champion {first[:12]}" in office.type("summary")
