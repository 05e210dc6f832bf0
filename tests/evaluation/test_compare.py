"""A report on a terminal: both models figure by figure, the verdicts, and nothing that acts on the terminal."""

from dpo_pipeline.evaluation.compare import report_text


def test_both_models_stand_in_columns_with_their_intervals(make_world, speakers, monkeypatch):
    world = make_world()
    world.evaluate(speakers, monkeypatch)
    text, report = report_text(world.report()), world.report()
    lines = text.splitlines()
    assert lines[0].startswith("Better. On-brand replies: ")
    assert lines[1] == report["decision"]["reason"]
    assert lines[4].split() == ["sft", "dpo"]
    passed = report["generations"]["sft"]["greedy"]["passed"]
    row = next(line for line in lines if line.startswith("Replies that meet every rule"))
    assert f"{100 * passed['value']:.0f} % ({100 * passed['low']:.0f}–{100 * passed['high']:.0f})" in row
    assert "Guidelines of Müller & Söhne: dpo against sft wins" in text
    assert "Cost: sft 40 steps over 12.3 k tokens; dpo 40 steps" in text
    report["models"]["dpo"]["counts"]["steps_planned"] = 90
    assert "dpo 40 of 90 steps (stopped early) over 12.3 k tokens" in report_text(report)
    report["models"]["dpo"]["counts"]["published_step"] = 30
    assert "dpo 40 of 90 steps (stopped early, weights of step 30) over 12.3 k tokens" in report_text(report)
    report["models"]["dpo"]["counts"]["steps_planned"] = 40
    assert "dpo 40 steps (weights of step 30) over 12.3 k tokens" in report_text(report)


def test_a_champion_and_missing_figures_are_said(make_world, speakers, fake_speaker, monkeypatch):
    world = make_world()
    world.evaluate({**speakers, "champion": fake_speaker("champion", skill=0.95)}, monkeypatch)
    report = world.report()
    assert "\nAgainst champion: " in report_text(report)
    report["generations"]["dpo"] = {}
    row = next(line for line in report_text(report).splitlines() if line.startswith("Words per reply"))
    assert row.split()[-1] == "–"


def test_control_characters_do_not_reach_the_terminal(make_world, speakers, monkeypatch):
    world = make_world(pair_count=20)
    world.evaluate(speakers, monkeypatch)
    report = world.report() | {"warnings": ["a\x1b[2Jb"]}
    assert "\x1b" not in report_text(report)
