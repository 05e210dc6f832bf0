"""What the check of the split says of a leak: the build leaves none, so one is a defect and stops the training."""

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.checks import enough_held_out, split_is_clean
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


@pytest.mark.parametrize(("share", "passed"), [(0.049, False), (0.05, True), (0.11, True)])
def test_less_than_half_of_the_share_held_out_is_a_warning_that_says_why(share, passed):
    pairs = SimpleNamespace(
        counts={"prompts_like_demonstrations": 1_834},
        facts={"held_out_share_of_prompts": share, "largest_cluster_share_of_prompts": 0.01},
    )
    home = SimpleNamespace(home=SimpleNamespace(latest=lambda _: pairs))
    settings = SimpleNamespace(values=SimpleNamespace(preferences=SimpleNamespace(held_out_share=0.1)))
    found = enough_held_out.op.compute_fn.decorated_fn(home, settings)  # type: ignore[union-attr]
    assert (found.passed, found.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert f"{100 * share:.1f} % of prompts are held out, 10 % were asked for. 1,834 prompts" in found.description
    assert found.metadata["prompts like demonstrations of earlier drops"].value == 1_834
