"""Signed statements of what was made from what: in-toto Statement v1 in a DSSE envelope, Ed25519, one per artifact.

Signed by the reconciler after it has re-hashed every file, never by the process that trained. A statement also names
the ledger's head at that time, so that a ledger cut short afterwards is found even if its `head` was rewritten.
Formats: github.com/in-toto/attestation (spec/v1), github.com/secure-systems-lab/dsse, slsa.dev/spec/v1.0/provenance.
"""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dpo_pipeline.core.artifacts import MANIFEST, Artifact
from dpo_pipeline.core.digests import canonical_json, sha256_of_file
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node
from dpo_pipeline.lineage.checks import Check

KEY_VARIABLE = "DPO_PIPELINE_SIGNING_KEY"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"


def private_key_path(home: Home) -> Path:
    """Where the signing key lies: DPO_PIPELINE_SIGNING_KEY, else under the home's `keys/`, never in an artifact."""
    return Path(os.environ.get(KEY_VARIABLE) or home.root / "keys" / "signing.key")


def public_key_path(home: Home) -> Path:
    """The key a reviewer is handed; whoever can replace this file can replace every signature too."""
    return home.root / "ledger" / "signing.pub"


def envelope_path(home: Home, digest: str) -> Path:
    """Where the envelope of an artifact lies."""
    return home.root / "ledger" / "attestations" / f"{digest}.dsse.json"


def make_keys(home: Home) -> Path:
    """A fresh key pair, the private half readable by its owner only; the path of the public half.

    Raises:
        InputError: If there is a key already: replacing it would orphan every signature made with it.
    """
    secret, public = private_key_path(home), public_key_path(home)
    if secret.exists() or public.exists():
        raise InputError(
            f"there is a signing key already: {secret if secret.exists() else public}",
            expected="none",
            do="Keep it. To begin anew, move both halves and ledger/attestations away first",
        )
    key = Ed25519PrivateKey.generate()
    secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    public.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, form))
    return public


def sign_artifacts(home: Home) -> list[str]:
    """Re-hash and sign every artifact the ledger says was made and nobody signed; one sentence each."""
    if not private_key_path(home).exists():
        return []
    key = serialization.load_pem_private_key(private_key_path(home).read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{private_key_path(home)} is no Ed25519 key", do="Make one with `lineage keygen`")
    signed = {line["artifact"] for line in home.ledger.lines() if line["event"] == "signed"}
    said = []
    for line in {line["artifact"]: line for line in reversed(home.finished())}.values():
        if line["artifact"] in signed:
            continue
        try:
            artifact = home.store.get(line["asset"], line["artifact"])
        except ArtifactError as error:
            said.append(f"not signed: {error}")
            continue
        if faults := artifact.verify():
            said.append(f"not signed: {'; '.join(faults)}")
            continue
        _sign(home, artifact, line, key)
        said.append(f"signed {artifact.kind}/{artifact.digest}")
    return said


def check_signatures(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether each artifact of a chain carries a valid signature over what it claims to be."""
    name, count = "signatures are valid", f"{len(nodes)} artifacts"
    signed = {line["artifact"] for line in home.ledger.lines() if line["event"] == "signed"}
    if not public_key_path(home).exists():
        if signed:
            fault = f"{public_key_path(home)} is missing, the ledger says that {len(signed)} artifacts were signed"
            return Check(name, count, (fault,))
        return Check(name, count, not_run="no signing key was ever made; `dpo-pipeline lineage keygen` makes one")
    try:
        key = serialization.load_pem_public_key(public_key_path(home).read_bytes())
    except ValueError as error:
        return Check(name, count, (f"{public_key_path(home)} is no public key: {error}",))
    if not isinstance(key, Ed25519PublicKey):
        return Check(name, count, (f"{public_key_path(home)} is no Ed25519 key",))
    lines = {line["seq"]: line["hash"] for line in home.ledger.lines()}
    faults, unsigned = [], 0
    for node in nodes.values():
        claimed = node.artifact.path.name
        if envelope_path(home, claimed).exists() or claimed in signed:
            faults += _faults(home, claimed, node.artifact, key, lines)
        else:
            unsigned += 1
    waiting = f"{unsigned} artifacts are not signed yet; `dpo-pipeline lineage reconcile` signs them"
    return Check(name, count, tuple(faults), waiting if unsigned else None)


def _sign(home: Home, artifact: Artifact, line: Mapping[str, Any], key: Ed25519PrivateKey) -> None:
    """Write the envelope, then the ledger's line; a crash between leaves one that is simply written again."""
    body = canonical_json(_statement(home, artifact, line)).encode()
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"sig": base64.b64encode(key.sign(_encoded(body))).decode()}],
    }
    path = envelope_path(home, artifact.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(canonical_json(envelope) + "\n", encoding="utf-8")
    aside.replace(path)
    home.ledger.append("signed", artifact=artifact.digest, asset=artifact.kind, envelope_sha256=sha256_of_file(path))


def _statement(home: Home, artifact: Artifact, line: Mapping[str, Any]) -> dict[str, Any]:
    manifest, head = artifact.manifest, home.ledger.head()
    files = {MANIFEST: sha256_of_file(artifact.path / MANIFEST)}
    files.update({entry["name"]: entry["sha256"] for entry in manifest["files"]})
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{artifact.kind}/{name}", "digest": {"sha256": sha}} for name, sha in files.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"dpo-pipeline/{artifact.kind}@{manifest['code_version']}",
                "externalParameters": dict(manifest["settings"]),
                "resolvedDependencies": [
                    {"name": parent.role, "digest": {"sha256": parent.digest}} for parent in artifact.parents
                ],
            },
            "runDetails": {
                "builder": {"id": "dpo-pipeline"},
                "metadata": {"invocationId": line.get("attempt"), "finishedOn": line["time"]},
                "byproducts": [
                    {"name": "artifact", "digest": {"sha256": artifact.digest}},
                    {"name": "ledger head", "annotations": asdict(head) if head else {}},
                ],
            },
        },
    }


def _faults(
    home: Home, claimed: str, artifact: Artifact, key: Ed25519PublicKey, lines: Mapping[int, str]
) -> Iterator[str]:
    path = envelope_path(home, claimed)
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
        body = base64.b64decode(envelope["payload"], validate=True)
        key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), _encoded(body))
        byproducts = json.loads(body)["predicate"]["runDetails"]["byproducts"]
        stated, head = byproducts[0]["digest"]["sha256"], byproducts[1]["annotations"]
        manifest_sha = json.loads(body)["subject"][0]["digest"]["sha256"]
    except FileNotFoundError:
        yield f"{path} is missing, the ledger says that {artifact.kind}/{claimed} was signed"
    except InvalidSignature:
        yield f"{path} does not carry a signature of {public_key_path(home)} over what it says"
    except (ValueError, KeyError, IndexError, TypeError) as error:
        yield f"{path} is no signed statement: {type(error).__name__} {error}"
    else:
        if stated != claimed:
            yield f"{path} states artifact {stated}, its name and the chain say {claimed}"
        if (found := sha256_of_file(artifact.path / MANIFEST)) != manifest_sha:
            yield f"{artifact.path / MANIFEST} hashes to {found}, the signed statement {path} says {manifest_sha}"
        if head and lines.get(head["lines"] - 1) != head["hash"]:
            yield (
                f"{home.ledger.path} has {lines.get(head['lines'] - 1)} on line {head['lines']}, "
                f"the signed statement {path} says {head['hash']}"
            )


def _encoded(body: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, which binds the type to the body."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
