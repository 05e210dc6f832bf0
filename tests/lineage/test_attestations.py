"""Signatures: made after re-hashing, checked against disk and ledger; whatever is altered is named with both values."""

import base64
import json

import pytest

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.lineage.attestations import (
    check_signatures,
    envelope_path,
    make_keys,
    private_key_path,
    public_key_path,
    sign_artifacts,
)
from dpo_pipeline.lineage.chain import ancestors, chain_of


def make(home, text):
    with home.store.staging() as folder:
        (folder / "rows.txt").write_text(text)
        artifact = home.store.publish(folder, Recipe("judgments", "1", {}, ()), Outcome())
    home.ledger.append("finished", asset="judgments", partition=None, artifact=artifact.digest)
    return artifact


def check(home):
    return check_signatures(home, ancestors(chain_of(home, "judgments")))


@pytest.fixture
def signed(home):
    make_keys(home)
    artifact = make(home, "may")
    assert sign_artifacts(home) == [f"signed judgments/{artifact.digest}"]
    return artifact


def test_without_a_key_the_check_was_not_run_and_says_how_to_make_one(home):
    make(home, "may")
    assert check(home).faults == ()
    assert "lineage keygen" in check(home).not_run


def test_a_signed_chain_is_without_faults_and_is_signed_once(home, signed):
    assert (check(home).faults, check(home).not_run) == ((), None)
    assert sign_artifacts(home) == []
    assert private_key_path(home).stat().st_mode & 0o777 == 0o600


def test_what_nobody_signed_yet_is_not_a_pass(home, signed):
    make(home, "june")
    assert "1 artifacts are not signed yet" in check(home).not_run


def test_an_altered_artifact_is_not_signed(home):
    make_keys(home)
    artifact = make(home, "may")
    (artifact.path / "rows.txt").write_text("mai")
    [sentence] = sign_artifacts(home)
    assert sentence.startswith(f"not signed: {artifact.path / 'rows.txt'} hashes to")
    assert not envelope_path(home, artifact.digest).exists()


def test_a_missing_envelope_of_a_signed_artifact_is_a_fault(home, signed):
    envelope_path(home, signed.digest).unlink()
    [fault] = check(home).faults
    assert f"{envelope_path(home, signed.digest)} is missing" in fault


def test_an_edited_statement_is_a_fault(home, signed):
    path = envelope_path(home, signed.digest)
    envelope = json.loads(path.read_text())
    body = base64.b64decode(envelope["payload"]).replace(b"dpo-pipeline/judgments", b"dpo-pipeline/judgmentz")
    path.write_text(json.dumps(envelope | {"payload": base64.b64encode(body).decode()}))
    assert "does not carry a signature" in check(home).faults[0]


def test_a_manifest_replaced_after_signing_is_named_with_both_values(home, signed):
    manifest = signed.path / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    [fault] = check(home).faults
    assert str(manifest) in fault
    assert str(envelope_path(home, signed.digest)) in fault


def test_a_ledger_cut_short_is_found_even_if_its_head_was_rewritten(home):
    make_keys(home)
    make(home, "may")
    make(home, "june")
    sign_artifacts(home)
    first = home.ledger.path.read_text().splitlines()[0]
    june = home.latest("judgments")
    nodes = ancestors(chain_of(home, f"judgments/{june.digest}"))
    home.ledger.path.write_text(first + "\n")
    home.ledger.head_path.write_text(json.dumps({"lines": 1, "hash": json.loads(first)["hash"]}))
    assert home.ledger.verify() == []
    assert "has None on line 2" in check_signatures(home, nodes).faults[0]


def test_a_lost_public_key_is_a_fault_once_something_was_signed(home, signed):
    public_key_path(home).unlink()
    assert "1 artifacts were signed" in check(home).faults[0]


def test_a_key_is_never_replaced(home, signed):
    with pytest.raises(InputError, match="there is a signing key already"):
        make_keys(home)
