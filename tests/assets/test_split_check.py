"""What the check of the split says of a leak: the build leaves none, so one is a defect and stops the training."""

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.checks import split_is_clean
from dpo_pipeline.preferences import leakage


@pytest.mark.parametrize(
    ("shared", "near", "passed"), [([], [], True), (["p1"], [], False), ([], [("p1", "p2", 0.62)], False)]
)
def test_a_prompt_on_both_sides_and_a_near_copy_across_them_are_defects_alike(monkeypatch, shared, near, passed):
    monkeypatch.setattr(leakage, "prompts_on_both_sides", lambda _: shared)
    monkeypatch.setattr(leakage, "near_leaks", lambda _, *, jaccard, reporter: reporter.say("5 of 9 keys") or near)
    said: list[str] = []
    context = SimpleNamespace(log=SimpleNamespace(info=said.append))
    home = SimpleNamespace(home=SimpleNamespace(latest=lambda _: SimpleNamespace(path=Path("pairs"))))
    settings = SimpleNamespace(values=SimpleNamespace(preferences=SimpleNamespace(prompt_cluster_jaccard=0.5)))
    found = split_is_clean.op.compute_fn.decorated_fn(context, home, settings)  # type: ignore[union-attr]
    assert said == ["5 of 9 keys"]
    assert (found.passed, found.severity) == (passed, dg.AssetCheckSeverity.ERROR)
    assert "report this as a defect" in found.description
    assert found.metadata["most alike"].value == ("p1 ~ p2 (0.62)" if near else "")
