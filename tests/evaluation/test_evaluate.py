def test_a_better_challenger_is_called_better(make_world, speakers, monkeypatch):
    world = make_world()
    outcome = world.evaluate(speakers, monkeypatch)
    assert outcome.facts["outcome"] == "better"
