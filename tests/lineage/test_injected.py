"""Whatever is altered anywhere in a chain is found, and the sentence names the file and both values."""

import json
import random

import pytest

from dpo_pipeline.core.digests import canonical_json, digest_of_json, sha256_of_file
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.evidence import check_files, check_ledger
from dpo_pipeline.lineage.verify import verdict, verify


def nodes_of(home, subject="preference_pairs"):
    return ancestors(chain_of(home, subject))


def flipped(path, chance):
    """The bytes of a file with one of them changed."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def test_one_flipped_byte_in_any_file_of_the_chain_is_named_with_both_digests(built):
    """Every file of every artifact, manifests among them; the byte and the bit are drawn by a fixed seed."""
    chance = random.Random(20261126)
    files = [
        path for node in nodes_of(built).values() for path in sorted(node.artifact.path.rglob("*")) if path.is_file()
    ]
    assert len(files) > 20
    for path in files:
        before, claimed = path.read_bytes(), sha256_of_file(path)
        path.write_bytes(flipped(path, chance))
        try:
            faults = faults_of(built)
            named = [
                fault
                for fault in faults
                if str(path) in fault or (path.name == "manifest.json" and path.parent.name in fault)
            ]
            assert named, path
            if path.name != "manifest.json":
                assert f"{path} hashes to {sha256_of_file(path)}, the manifest claims {claimed}" in named
        finally:
            path.write_bytes(before)
    assert check_files(built, nodes_of(built)).faults == ()


def faults_of(home):
    """What the check of files says; where the subject's own manifest is gone, the error that ends the audit."""
    from dpo_pipeline.core.errors import ArtifactError

    try:
        return check_files(home, nodes_of(home)).faults
    except ArtifactError as error:
        return (str(error),)


def test_a_file_too_many_in_any_artifact_of_the_chain_is_named(built):
    for node in nodes_of(built).values():
        stranger = node.artifact.path / "notes.txt"
        stranger.write_text("x")
        assert f"{stranger} is on disk but not in the manifest" in check_files(built, nodes_of(built)).faults
        stranger.unlink()


def test_any_ledger_line_that_is_dropped_doubled_moved_or_edited_is_named(built):
    lines = built.ledger.path.read_text().splitlines(keepends=True)
    for number in range(len(lines)):
        line = json.loads(lines[number])
        edited = canonical_json({**line, "asset": "other"}) + "\n"
        rehashed = {name: value for name, value in {**line, "asset": "other"}.items() if name != "hash"}
        rehashed = canonical_json({**rehashed, "hash": digest_of_json(rehashed)}) + "\n"
        for change, forged in {
            "dropped": lines[:number] + lines[number + 1 :],
            "doubled": [*lines[: number + 1], lines[number], *lines[number + 1 :]],
            "edited": [*lines[:number], edited, *lines[number + 1 :]],
            "edited and hashed again": [*lines[:number], rehashed, *lines[number + 1 :]],
            "moved": [*lines[:number], *reversed(lines[number : number + 2]), *lines[number + 2 :]],
        }.items():
            if forged == lines:
                continue  # the last line has no successor to change places with
            built.ledger.path.write_text("".join(forged))
            faults = check_ledger(built).faults
            assert faults, (change, number)
            assert any(f"line {place}" in fault for fault in faults for place in (number + 1, number + 2)) or (
                f"has {len(forged)} lines, its head speaks of {len(lines)}" in faults[-1]
            ), (change, number, faults)
    built.ledger.path.write_text("".join(lines))
    assert check_ledger(built).faults == ()


@pytest.mark.parametrize("left", [1, 5, -1])
def test_a_ledger_cut_anywhere_is_shorter_than_its_head_says(built, left):
    lines = built.ledger.path.read_text().splitlines(keepends=True)
    built.ledger.path.write_text("".join(lines[:left]))
    [fault] = check_ledger(built).faults
    assert f"has {len(lines[:left])} lines, its head speaks of {len(lines)}" in fault


def test_any_artifact_replaced_whole_by_another_of_its_kind_is_named_by_the_digest_that_was_claimed(built):
    """The stranger's manifest fits the stranger's files; but the chain claims another digest."""
    for node in nodes_of(built).values():
        path = node.artifact.path
        keep = path.with_name("kept")
        path.rename(keep)
        path.mkdir()
        (path / "rows.txt").write_text("stranger")
        files = [{"name": "rows.txt", "size": 8, "sha256": sha256_of_file(path / "rows.txt")}]
        manifest = {**node.artifact.manifest, "files": files}
        (path / "manifest.json").write_text(canonical_json(manifest))
        faults = faults_of(built)
        assert (
            f"{path / 'manifest.json'} hashes to {digest_of_json(manifest)}, its folder is named {path.name}" in faults
        )
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        keep.rename(path)


def test_an_audit_of_an_altered_chain_says_fail(built):
    path = built.latest("preference_pairs").path / "splits.parquet"
    path.write_bytes(flipped(path, random.Random(1)))
    assert verdict(verify(built, "preference_pairs")) == "FAIL"
