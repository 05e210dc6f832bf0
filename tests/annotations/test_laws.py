"""Laws of reading: it never raises, every record is kept or rejected once with a reason, order does not matter."""

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.annotations.findings import drop_yaml_of
from dpo_pipeline.annotations.proposing import flattened, propose_for
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import CHOICES, Demonstration, Judgment, Unusable
from dpo_pipeline.annotations.registry import FORMATS
from dpo_pipeline.annotations.rules import Rules

GOLDENS = Path(__file__).parent / "goldens"
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=8)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def golden_records():
    """Every record of the JSON goldens: what hypothesis damages."""
    found = []
    for path in sorted(GOLDENS.rglob("*.json*")):
        if path.name != "expected.json":
            text = path.read_text(encoding="utf-8-sig")
            found += json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return found


RECORDS = golden_records()


@st.composite
def damaged(draw):
    """A golden record with some values, anywhere in it, replaced by anything."""
    record = json.loads(json.dumps(draw(st.sampled_from(RECORDS))))
    for _ in range(draw(st.integers(0, 3))):
        place = record
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(ANY)
            break
    return record


@settings(max_examples=150, deadline=None)
@given(damaged() | st.dictionaries(st.text(max_size=8), ANY, max_size=5))
def test_no_format_meets_a_record_it_did_not_foresee(record):
    for module in FORMATS.values():
        assert 0 <= module.recognise([record]) <= 1
        try:
            parts = module.parse(record, Rules())
        except Unusable as problem:
            parts = [problem]
        assert parts, module.NAME
        for part in parts:
            assert isinstance(part, Judgment | Demonstration | Unusable)
            if isinstance(part, Unusable):
                assert part.reason is not Reason.UNEXPECTED_SHAPE
            elif isinstance(part, Judgment):
                assert_sound(part)
            else:
                assert part.messages[-1][0] == "assistant"


def assert_sound(judgment):
    assert judgment.choice in CHOICES
    sign = {"a": -1, "b": 1}.get(judgment.choice, 0)
    assert (judgment.strength > 0) - (judgment.strength < 0) == sign
    assert -3 <= judgment.strength <= 3
    assert judgment.response_a.strip()
    assert judgment.response_b.strip()
    assert judgment.prompt[-1][0] == "user"
    assert all(content for _, content in judgment.prompt)


LINES = st.lists(
    st.one_of(
        st.sampled_from(RECORDS).map(lambda record: json.dumps(record).encode()),
        damaged().map(lambda record: json.dumps(record).encode()),
        st.binary(max_size=60).filter(lambda line: b"\n" not in line),
    ),
    max_size=8,
)
ENDINGS = st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".zip", ".xlsx", ".parquet"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abc"), st.tuples(ENDINGS, LINES), min_size=1, max_size=3))
def test_every_record_is_kept_or_rejected_once_and_file_names_do_not_matter(read_folder, files):
    results = []
    for rename in (str, {"a": "z", "b": "y", "c": "x"}.get):
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "raw" / "files"
            folder.mkdir(parents=True)
            contents = set()
            for name, (ending, lines) in files.items():
                content = b"\n".join(lines)
                if content not in contents:  # of equal files only the first by name is read
                    (folder / f"{rename(name)}{ending}").write_bytes(content)
                contents.add(content)
            results.append(read_folder(folder, Path(home) / "out"))
    for result in results:
        books = result.books
        assert books.is_balanced
        assert books.rejected_count == len(result.rejected)
        assert books.kept["demonstrations"] == len(result.demonstrations)
        assert books.kept["judgment_records"] == len({(row["file"], row["record_number"]) for row in result.judgments})
        assert {row["reason"] for row in result.rejected} <= set(Reason)
        assert all(len(row["excerpt"]) <= 200 and len(row["detail"]) <= 200 for row in result.rejected)
        assert len({row["judgment_id"] for row in result.judgments}) == len(result.judgments)

    def facts(result):
        hidden = {"file"}
        return sorted(
            json.dumps({name: value for name, value in row.items() if name not in hidden}, default=str, sort_keys=True)
            for row in (*result.judgments, *result.rejected, *result.demonstrations)
        )

    assert facts(results[0]) == facts(results[1])


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason):
    assert reason.sentence.endswith(".")


LONG = st.text("abc de", min_size=12, max_size=30)
CELLS = st.sampled_from(
    ["a", "b", "B > A", "a is much better", 1, 2, 3, "1", "4", 0, "slightly", "tie", "", None, True, 2.5]
)
SHEETS = [
    ("prompt", "response_a", "response_b", "verdict", "strength", "seconds", "tone (1)", "tone (2)", "x"),
    ("question", "Answer 1", "Answer 2", "Better", "labeler", "submitted_at", "shown_first"),
    ("prompt", "answer_a", "answer_b", "answer_c", "ranking", "worker"),
    ("prompt", "response", "rating", "tone", "worker", "seconds"),
    ("prompt", "text_0", "text_1", "text_2", "rank_0", "rank_1", "rank_2", "score 1", "score 2", "score 3"),
]


@st.composite
def sheets(draw):
    """Rows of a spreadsheet whose long texts are where they should be, and anything in its other columns."""
    columns = draw(st.sampled_from(SHEETS))
    names = ("prompt", "question", "response", "Answer", "answer", "text")
    row = st.fixed_dictionaries({name: LONG if name.startswith(names) else CELLS | ANY for name in columns})
    regular = st.fixed_dictionaries({name: LONG if name.startswith(names) else CELLS for name in columns})
    return draw(st.lists(draw(st.sampled_from([row, regular, regular])), min_size=1, max_size=4))


@settings(max_examples=200, deadline=None)
@given(sheets() | st.lists(st.dictionaries(st.text(max_size=5), ANY, max_size=8), max_size=3))
def test_whatever_the_columns_hold_what_is_proposed_can_be_put_beside_the_files(sample):
    proposal = {"match": "export.csv", **propose_for(sample)}
    rules = DropRules.parse(yaml.safe_load(drop_yaml_of([proposal])) or {}, where="the proposal")
    columns = {name for record in sample for name in flattened(record)}
    for rule in rules.files:
        assert set(rule.mapping.columns) <= columns
        for record in sample:
            try:
                parts = FORMATS["columns"].parse(record, Rules(rule))
            except Unusable as problem:
                parts = [problem]
            for part in parts:
                assert isinstance(part, Unusable) or assert_sound(part) is None
