"""Pairs that look like English with duplicates planted among them, their judgments, and what a piece of work costs."""

import multiprocessing
import resource
import threading
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dpo_pipeline.annotations.schemas import JUDGMENTS

KINDS = {
    "exact": 0.05,
    "spelling": 0.03,
    "swapped": 0.02,
    "words_1_to_3": 0.03,
    "words_5_percent": 0.03,
    "words_10_percent": 0.03,
    "words_20_percent": 0.03,
    "sentence_added": 0.03,
    "same_prompt": 0.04,
    "same_prompt_and_one_response": 0.02,
    "half_of_both_responses": 0.02,
}
"""Share of the rows that are a copy of another, by what was done to it."""
NOT_DUPLICATES = {"same_prompt", "same_prompt_and_one_response", "half_of_both_responses"}


class Pair(NamedTuple):
    prompt: str
    a: str
    b: str


class World:
    """A seeded source of English-looking pairs: sentences of a Zipf vocabulary, recombined."""

    def __init__(self, seed: int, *, sentences: int = 22_000, vocabulary: int = 12_000) -> None:
        self.chance = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        self.words = ["".join(self.chance.choice(letters, size=n)) for n in self.chance.integers(2, 10, vocabulary)]
        ranks = np.arange(1, vocabulary + 1)
        self.weights = (1 / ranks) / (1 / ranks).sum()
        lengths = self.chance.integers(5, 24, sentences)
        drawn = iter(self.chance.choice(vocabulary, size=int(lengths.sum()), p=self.weights).tolist())
        self.sentences = [
            " ".join(self.words[next(drawn)] for _ in range(length)).capitalize() + "." for length in lengths
        ]

    def text(self, low: int, high: int) -> str:
        picked = self.chance.integers(0, len(self.sentences), self.chance.integers(low, high + 1))
        return " ".join(self.sentences[place] for place in picked)

    def pair(self) -> Pair:
        return Pair(self.text(1, 3), self.text(1, 6), self.text(1, 6))

    def half_of(self, text: str) -> str:
        """Half of the sentences of a text, rounded down, and as many others in place of the rest."""
        own = text.split(". ")
        kept = len(own) // 2
        return ". ".join([*own[:kept], self.text(len(own) - kept, len(own) - kept)])

    def word(self) -> str:
        return self.words[int(self.chance.integers(0, len(self.words)))]

    def edited(self, pair: Pair, *, share: float = 0.0, count: int = 0) -> Pair:
        """The pair with some of its words replaced, dropped, doubled by another or swapped with the next."""
        texts = [text.split() for text in pair]
        places = [(part, place) for part, words in enumerate(texts) for place in range(len(words))]
        count = count or max(1, round(share * len(places)))
        for index in self.chance.choice(len(places), size=min(count, len(places)), replace=False):
            part, place = places[index]
            words = texts[part]
            match int(self.chance.integers(0, 4)):
                case 0:
                    words[place] = self.word()
                case 1:
                    words[place] = "" if len(words) > 1 else words[place]
                case 2:
                    words[place] += " " + self.word()
                case _:
                    other = min(place + 1, len(words) - 1)
                    words[place], words[other] = words[other], words[place]
        return Pair(*(" ".join(word for word in words if word) or self.word() for words in texts))

    def copy(self, pair: Pair, kind: str) -> Pair:
        match kind:
            case "exact":
                return pair
            case "spelling":
                return Pair(pair.prompt.upper(), "  " + pair.a.replace(" ", "  ", 2), pair.b.swapcase() + "\n")
            case "swapped":
                return Pair(pair.prompt, pair.b, pair.a)
            case "words_1_to_3":
                return self.edited(pair, count=int(self.chance.integers(1, 4)))
            case "sentence_added":
                return pair._replace(a=pair.a + " " + self.text(1, 1))
            case "same_prompt":
                return Pair(pair.prompt, self.text(1, 6), self.text(1, 6))
            case "same_prompt_and_one_response":
                return pair._replace(b=self.text(1, 6))
            case "half_of_both_responses":
                return pair._replace(a=self.half_of(pair.a), b=self.half_of(pair.b))
        return self.edited(pair, share=int(kind.split("_")[1]) / 100)


def planted(count: int, seed: int) -> tuple[list[Pair], list[tuple[int, int, str]]]:
    """Pairs in random order, and which is a copy of which, how."""
    world = World(seed)
    copies = [kind for kind, share in KINDS.items() for _ in range(int(share * count))]
    originals = [world.pair() for _ in range(count - len(copies))]
    chosen = world.chance.choice(len(originals), size=len(copies), replace=False)
    pairs = originals + [world.copy(originals[place], kind) for place, kind in zip(chosen, copies, strict=True)]
    order = world.chance.permutation(count)
    position = np.argsort(order)
    truth = [
        (int(position[place]), int(position[len(originals) + number]), kind)
        for number, (place, kind) in enumerate(zip(chosen, copies, strict=True))
    ]
    return [pairs[place] for place in order], truth


def judgments_of(pairs: list[Pair], start: int, chance: np.random.Generator) -> pa.Table:
    """One judgment on each pair, numbered from `start`."""
    count = len(pairs)
    # Annotators agree that the longer response is better, with 85 % of their votes; one in twenty guesses.
    annotator = chance.integers(0, 500, count)
    longer = np.array([len(pair.a) > len(pair.b) for pair in pairs])
    right = chance.random(count) < np.where(annotator % 20 == 0, 0.5, 0.85)
    choice = np.where(longer == right, "a", "b").astype("<U8")
    choice[chance.random(count) < 0.08] = "tie"
    choice[chance.random(count) < 0.03] = "both_bad"
    strength = np.select(
        [choice == "a", choice == "b"], [-chance.integers(1, 4, count), chance.integers(1, 4, count)], 0
    )
    columns = {
        "judgment_id": [f"{start + place:032x}" for place in range(count)],
        "drop": ["bench"] * count,
        "source": ["bench"] * count,
        "file": ["bench.jsonl"] * count,
        "file_sha256": ["0" * 64] * count,
        "record_number": list(range(start + 1, start + count + 1)),
        "prompt": [[{"role": "user", "content": pair.prompt}] for pair in pairs],
        "response_a": [pair.a for pair in pairs],
        "response_b": [pair.b for pair in pairs],
        "choice": choice.tolist(),
        "strength": strength.tolist(),
        "annotator": [f"annotator-{number:03}" for number in annotator],
        "votes": [1] * count,
        "dimensions": [[{"name": "tone", "strength": float(value)}] for value in strength],
        "justification": [None] * count,
        "shown_first": ["a"] * count,
        "seconds": chance.uniform(5, 200, count).tolist(),
        "judged_at": [None] * count,
        "guideline_version": [None] * count,
        "group_id": [None] * count,
        "sft_allowed": [True] * count,
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in JUDGMENTS}, schema=JUDGMENTS)


def measured(work, *arguments) -> dict[str, object]:
    """What a function returns, with its CPU seconds, seconds and peak memory, in a process of its own.

    `peak_mb` counts pages of mapped files, which the system may take back; `anonymous_mb` only what it may not.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    finally:
        process.join()


class _AnonymousMemory(threading.Thread):
    """Looks now and then how much memory the process holds that no file on disk stands behind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_kb = 0

    def run(self) -> None:
        while True:
            with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
                kilobytes = next((int(line.split()[1]) for line in status if line.startswith("RssAnon:")), 0)
            self.peak_kb = max(self.peak_kb, kilobytes)
            time.sleep(0.05)


def _measure(pipe, work, arguments) -> None:
    anonymous = _AnonymousMemory()
    anonymous.start()
    start = time.perf_counter()
    before = time.process_time()
    result = work(*arguments)
    pipe.send(
        {
            "result": result,
            "cpu_s": round(time.process_time() - before, 2),
            "s": round(time.perf_counter() - start, 2),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "anonymous_mb": anonymous.peak_kb // 1024,
        }
    )
