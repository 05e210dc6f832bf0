"""docs/drops.md: every setting it shows is one that is read."""

import re
from pathlib import Path

import yaml

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.preferences.settings import PreferenceSettings

GUIDE = Path(__file__).parents[2] / "docs" / "drops.md"
REFERENCE = GUIDE.with_name("reference.md")


def test_the_examples_fit():
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)]
    assert len(examples) == 5
    for example in examples:
        if "files" in example:
            files = DropRules.parse(example, where="the guide").files
            assert all(rule.mapping is not None or rule.encoding is not None for rule in files)
        else:
            PreferenceSettings.parse(example["preferences"], where="the guide")


def test_the_places_it_points_to_exist():
    headings = {
        re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-")
        for line in REFERENCE.read_text().splitlines()
        if line.startswith("## ")
    }
    places = re.findall(r"\(reference\.md#([a-z-]+)\)", GUIDE.read_text())
    assert len(places) == 3
    assert set(places) <= headings
