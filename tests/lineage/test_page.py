"""The page: verdict first, no script, everything escaped, the same text for the same audit."""

import json
from pathlib import Path
from types import SimpleNamespace

from dpo_pipeline.lineage.audit import describe_audit
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.graph import draw_chain
from dpo_pipeline.lineage.page import render_chain, render_page
from dpo_pipeline.lineage.sections import describe_facts
from dpo_pipeline.lineage.verify import as_text, verify

EVIL = "<script>alert(1)</script>"


def test_the_audit_is_plain_values_and_the_page_is_made_from_them_alone(built_once):
    audit = describe_audit(built_once, "preference_pairs", verify(built_once, "preference_pairs"))
    again = json.loads(json.dumps(audit))
    assert render_page(again) == render_page(audit)
    page = render_page(audit)
    order = ["INCOMPLETE", "subject", "chain", "data", "annotators", "forgotten", "code", "training", "evaluation"]
    places = [page.index(order[0]), *(page.index(f'<h2 id="{name}"') for name in [*order[1:], "promotions", "open"])]
    assert places == sorted(places)
    assert "default-src 'none'" in page
    assert all(entry["sha256"] in page for drop in audit["data"] for entry in drop["files"])


def test_a_subject_named_by_its_digest_is_named_once_at_the_head(built_once):
    name = f"preference_pairs/{built_once.latest('preference_pairs').digest}"
    by_digest, by_asset = (
        render_chain(describe_audit(built_once, subject, [])).partition('<h2 id="subject"')[0]
        for subject in (name, "preference_pairs")
    )
    assert by_digest.count(f"<strong>{name}</strong>") == 1
    assert f"<code>{name}</code>" not in by_digest
    assert f"<strong>preference_pairs</strong> &middot; <code>{name}</code>" in by_asset


def test_no_text_of_an_annotation_stands_on_the_page(built_once):
    import pyarrow.parquet as pq

    page = render_page(describe_audit(built_once, "preference_pairs", verify(built_once, "preference_pairs")))
    folder = built_once.latest("preference_pairs").path
    for row in pq.read_table(folder / "pairs.parquet", columns=["chosen", "rejected"]).slice(0, 20).to_pylist():
        assert row["chosen"] not in page
        assert row["rejected"] not in page


def test_everything_is_escaped(built_once):
    audit = describe_audit(built_once, "preference_pairs", verify(built_once, "preference_pairs"))
    audit["subject"] = EVIL
    audit["chain"][0] |= {"role": EVIL, "kind": EVIL, "digest": EVIL}
    audit["checks"][0]["faults"] = [EVIL]
    audit["data"][0]["files"][0]["name"] = EVIL
    assert "<script" not in render_page(audit)


def test_the_speed_of_a_training_is_drawn_from_what_its_attempt_remarked(built_once):
    """It stands in the ledger and in no artifact: the same training at another speed is the same training."""
    node = SimpleNamespace(
        role="dpo_checkpoint",
        artifact=SimpleNamespace(path=Path("0" * 64), facts={}, counts={}, manifest={"settings": {}}),
        attempt={"remarks": {"speeds": {"step": [10, 20, 30], "tokens_per_second": [900, 1_100, 1_000]}}},
    )
    row = describe_facts(node)
    assert row["speeds"] == [[10, 900], [20, 1_100], [30, 1_000]]
    audit = describe_audit(built_once, "preference_pairs", verify(built_once, "preference_pairs"))
    assert "tokens a second" not in render_page(audit)
    assert render_page({**audit, "training": [{**row, "speeds": []}]}).count("<svg") == 1, "the chain alone"
    page = render_page({**audit, "training": [row]})
    assert "Thousand tokens a second" in page
    assert page.count("<svg") == 2
    node.attempt = {"remarks": {}}
    assert describe_facts(node)["speeds"] == []


def test_a_ledger_that_cannot_be_read_still_has_its_page(built):
    built.ledger.path.write_text("garbage\n")
    page = render_page(describe_audit(built, "preference_pairs", verify(built, "preference_pairs")))
    assert "FAIL" in page
    assert "line 1 is not JSON" in page


def test_the_picture_ends_also_where_kinds_lead_in_a_circle():
    one = {"kind": "a", "digest": "0" * 64, "parents": [{"kind": "b", "digest": "1" * 64}]}
    other = {"kind": "b", "digest": "1" * 64, "parents": [{"kind": "a", "digest": "0" * 64}]}
    assert draw_chain([one, other]).count("<circle") == 3  # one each, and a ring about the subject


def test_the_picture_draws_each_input_once_and_short_cuts_faintly():
    """raw -> table -> model, and raw -> model as well: three curves, of which the last is implied by the others."""
    named = {"made": None, "counts": {"rows": 1234}}
    raw, table, model = (
        {"kind": kind, "role": kind, "digest": digit * 64, **named} for kind, digit in zip("rtm", "012", strict=True)
    )
    chain = [{**model, "parents": [table, raw]}, {**table, "parents": [raw]}, {**raw, "parents": []}]
    picture = draw_chain(chain)
    assert picture.count("<path") == 3
    assert picture.count("#cbd5e1") == 1
    assert picture.index("000000000000") < picture.index("111111111111") < picture.index("222222222222")
    assert "1,234 rows" in picture


def test_many_of_one_kind_are_one_line():
    drops = [{"kind": "d", "role": f"d/{n}", "digest": f"{n:064x}", "made": None, "parents": []} for n in range(100)]
    picture = draw_chain([{"kind": "t", "role": "t", "digest": "f" * 64, "made": None, "parents": drops}, *drops])
    assert "100 of them" in picture
    assert picture.count("<path") == 1


def test_the_chain_alone_claims_no_verdict(built_once):
    page = render_chain(describe_audit(built_once, "preference_pairs", []))
    assert page.index("<h1>Lineage</h1>") < page.index("<svg")
    assert not any(f"<h1>{word}" in page for word in ("PASS", "FAIL", "INCOMPLETE"))
    assert "<h2>Checks" not in page


def test_of_many_faults_page_and_terminal_list_some_and_say_how_many_more_there_are(built_once):
    check = Check("files are what was published", "all", tuple(f"fault {number}." for number in range(300)))
    page = render_page(describe_audit(built_once, "preference_pairs", [check, Check("other", "")]))
    assert "1 of 2 checks found a fault. The first: " in page
    assert "fault 19." in page
    assert "fault 20." not in page
    assert "and 280 more" in page
    assert as_text([check]).endswith("fault 19.\n             and 280 more; --json lists all")
