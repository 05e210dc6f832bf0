"""Progress of long steps: a count, of how many, and how fast."""

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences import progress


class Heard(Quiet):
    """Keeps what it is told."""

    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


def test_a_last_piece_counts_for_what_was_left(monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY_SECONDS", 0.0)
    heard = Heard()
    told = progress.Progress(heard, "prompts searched", 30_000)
    told.add(20_000)
    told.add(262_144)
    assert [sentence.rpartition(", ")[0] for sentence in heard.sentences] == [
        "20,000 of 30,000 prompts searched",
        "30,000 of 30,000 prompts searched",
    ]
