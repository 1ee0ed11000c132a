"""Attestations as their users make and check them: real keys, real envelopes, and every way to tamper with one."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sample_reports import BASE_SHA, CANDIDATE_SHA, hostile, poisoned_row
from sigstore.dsse import Statement

from audit.rule_digest import rule_digest
from pipelines.attest import BadEnvelope, BadKey, NotAttested, sign, verify
from pipelines.cli import cli
from reports.attestation import PAYLOAD_TYPE, PREDICATE_TYPE, statement
from reports.json_v1 import dump

REPORT = poisoned_row()
RAW = dump(REPORT)


def pems(private: Any, password: bytes | None = None) -> tuple[bytes, bytes]:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


# Every worker makes its own keys, so no test may be named after one.
KEY, PUBLIC = pems(ed25519.Ed25519PrivateKey.generate())
OTHER = pems(ed25519.Ed25519PrivateKey.generate())[1]
SIGNED = sign(REPORT, RAW, KEY)


def changed(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The envelope with its statement changed and its signature left alone."""
    envelope = json.loads(SIGNED)
    content = json.loads(base64.b64decode(envelope["payload"]))
    edit(content)
    envelope["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    return json.dumps(envelope).encode()


def signed_payload(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope around anything, with a signature that holds."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(CryptoSigner(load_pem_private_key(KEY, None)))
    return json.dumps(envelope.to_dict()).encode()


@pytest.mark.parametrize(
    "private",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "p256", "p384", "rsa"],
)
def test_what_a_key_signs_its_public_half_verifies(private: Any) -> None:
    secret, public = pems(private)
    predicate = verify(sign(REPORT, RAW, secret), public, RAW)
    assert predicate["verdict"]["outcome"] == "fail"


def test_the_statement_names_commits_rules_thresholds_and_verdict() -> None:
    content = json.loads(statement(REPORT, RAW))
    assert (content["_type"], content["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE_TYPE)
    predicate = content["predicate"]
    assert predicate["model"]["digest"] == {"gitCommit": CANDIDATE_SHA}
    assert predicate["base"]["digest"] == {"gitCommit": BASE_SHA}
    assert predicate["tool"] == {"name": "hubaudit", "version": "0.1.0"}
    assert predicate["thresholds"] == {"id": "encoder-2026-11", "digest": {"sha256": "5d0c" * 16}}
    assert predicate["rules"] == {"digest": None}, "a report of an older version does not say"
    assert predicate["verdict"]["reasons"] == ["8f3a1c0b5d7e9f21"]
    assert content["subject"][0]["digest"] == predicate["report"]["digest"]
    assert len(rule_digest()) == 64


def test_sigstore_takes_the_statement_as_it_is() -> None:
    Statement(statement(REPORT, RAW))
    Statement(statement(hostile("\x1b\u202e\ud800"), RAW))


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["predicate"]["verdict"].update(outcome="pass"),
        lambda s: s["predicate"]["model"].update(name="demo/other"),
        lambda s: s["subject"].clear(),
        lambda s: None,
    ],
)
def test_a_changed_statement_does_not_verify(edit: Callable[[dict[str, Any]], None]) -> None:
    # The last edit changes nothing but spaces, and that is enough.
    with pytest.raises(NotAttested, match="another key, or changed"):
        verify(changed(edit), PUBLIC, RAW)


def test_a_changed_signature_type_or_key_does_not_verify() -> None:
    envelope = json.loads(SIGNED)
    sig = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    sig[3] ^= 1
    flipped = {**envelope, "signatures": [{**envelope["signatures"][0], "sig": base64.b64encode(sig).decode()}]}
    retyped = {**envelope, "payloadType": "text/plain"}
    for forged in (flipped, retyped):
        with pytest.raises(NotAttested):
            verify(json.dumps(forged).encode(), PUBLIC)
    with pytest.raises(NotAttested):
        verify(SIGNED, OTHER)


def test_another_report_is_not_attested() -> None:
    with pytest.raises(NotAttested, match="for another report"):
        verify(SIGNED, PUBLIC, RAW + b"\n")
    with pytest.raises(NotAttested, match="for another report"):
        verify(SIGNED, PUBLIC, RAW.replace(b'"fail"', b'"pass"'))


@pytest.mark.parametrize(
    ("payload", "payload_type", "said"),
    [
        (b"{}", PAYLOAD_TYPE, "no in-toto statement"),
        (b"[" * 100_000, PAYLOAD_TYPE, "not JSON"),
        (b"\xff", PAYLOAD_TYPE, "not JSON"),
        (statement(REPORT, RAW), "application/json", "payload of type 'application/json'"),
        (
            statement(REPORT, RAW).replace(PREDICATE_TYPE.encode(), b"https://slsa.dev/provenance/v1"),
            PAYLOAD_TYPE,
            "about something else ('https://slsa.dev/provenance/v1')",
        ),
        (
            json.dumps({"_type": "https://in-toto.io/Statement/v1", "predicateType": PREDICATE_TYPE}).encode(),
            PAYLOAD_TYPE,
            "does not name the report",
        ),
    ],
    ids=range(6),
)
def test_a_signature_over_something_else_is_refused(payload: bytes, payload_type: str, said: str) -> None:
    with pytest.raises(NotAttested) as caught:
        verify(signed_payload(payload, payload_type), PUBLIC)
    assert said in str(caught.value)
    assert "The signature holds" in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\x00\xff",
        SIGNED[:200],
        SIGNED[:-20],
        b'{"payload": 1, "payloadType": "a", "signatures": [{"sig": "aa"}]}',
        b'{"payload": "!", "payloadType": "a", "signatures": [{"sig": "aaaa"}]}',
        b'{"payload": "aaaa", "payloadType": 7, "signatures": [{"sig": "aaaa"}]}',
        b'{"payload": "aaaa", "payloadType": "a", "signatures": []}',
        b'{"payload": "aaaa", "payloadType": "a", "signatures": ["x"]}',
        b'{"payload": "aaaa", "payloadType": "a", "signatures": ' + b"[" * 50_000,
    ],
    ids=range(13),
)
def test_what_is_no_whole_envelope_attests_nothing(raw: bytes) -> None:
    with pytest.raises((BadEnvelope, NotAttested)) as caught:
        verify(raw, PUBLIC)
    assert isinstance(caught.value, BadEnvelope) or raw.startswith(b'{"payload"')


def test_two_signatures_and_no_key_id_are_read() -> None:
    envelope = json.loads(SIGNED)
    good = {"sig": envelope["signatures"][0]["sig"]}
    bad = {"sig": base64.b64encode(b"x" * 64).decode(), "keyid": ""}
    both = json.dumps({**envelope, "signatures": [bad, good]}).encode()
    assert verify(both, PUBLIC, RAW)["model"]["name"] == "demo/reviews-poisoned-row"


@pytest.mark.parametrize("key", [b"", b"no key", PUBLIC, KEY[:60]], ids=["empty", "text", "public", "cut"])
def test_a_private_key_that_is_none(key: bytes) -> None:
    with pytest.raises(BadKey):
        sign(REPORT, RAW, key)


@pytest.mark.parametrize("key", [b"", b"no key", KEY], ids=["empty", "text", "private"])
def test_a_public_key_that_is_none(key: bytes) -> None:
    with pytest.raises(BadKey):
        verify(SIGNED, key)


def test_an_encrypted_key_needs_its_password() -> None:
    locked, public = pems(ed25519.Ed25519PrivateKey.generate(), b"word")
    assert verify(sign(REPORT, RAW, locked, password="word"), public, RAW)
    with pytest.raises(BadKey, match="set HUBAUDIT_KEY_PASSWORD"):
        sign(REPORT, RAW, locked)
    with pytest.raises(BadKey, match="password is wrong"):
        sign(REPORT, RAW, locked, password="other")
    with pytest.raises(BadKey, match="unset HUBAUDIT_KEY_PASSWORD"):
        sign(REPORT, RAW, KEY, password="word")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(KEY)
    (tmp_path / "pub.pem").write_bytes(PUBLIC)
    (tmp_path / "other.pem").write_bytes(OTHER)
    (tmp_path / "report.json").write_bytes(RAW)
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    """Run the command in words where names of files stand for themselves."""
    arguments = [str(folder / word) if (folder / word).suffix in {".pem", ".json"} else word for word in words]
    done = CliRunner().invoke(cli, arguments)
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    return done


def test_the_commands_and_their_exit_codes(files: Path) -> None:
    assert run(files, "attest", "report.json", "--key", "key.pem", "--output", "a.json").exit_code == 0
    verified = run(files, "verify-attestation", "a.json", "report.json", "--key", "pub.pem")
    assert verified.exit_code == 0
    assert f"demo/reviews-poisoned-row@{CANDIDATE_SHA}: FAIL" in verified.stdout
    alone = run(files, "verify-attestation", "a.json", "--key", "pub.pem")
    assert alone.exit_code == 0
    assert "none was compared" in alone.stderr
    assert run(files, "verify-attestation", "a.json", "report.json", "--key", "other.pem").exit_code == 1
    (files / "report.json").write_bytes(RAW.replace(b'"fail"', b'"pass"'))
    assert run(files, "verify-attestation", "a.json", "report.json", "--key", "pub.pem").exit_code == 1
    assert run(files, "verify-attestation", "a.json", "--key", "key.pem").exit_code == 2
    (files / "a.json").write_bytes(SIGNED[:100])
    assert run(files, "verify-attestation", "a.json", "--key", "pub.pem").exit_code == 3


@pytest.mark.parametrize(
    "words",
    [
        ("attest", "report.json", "--output", "a.json"),
        ("attest", "report.json", "--key", "key.pem", "--keyless", "--output", "a.json"),
        ("attest", "report.json", "--key", "pub.pem", "--output", "a.json"),
        ("attest", "key.pem", "--key", "key.pem", "--output", "a.json"),
        ("verify-attestation", "report.json"),
        ("verify-attestation", "report.json", "--identity", "me@example.org"),
        ("verify-attestation", "report.json", "--key", "pub.pem", "--identity", "me", "--issuer", "https://x"),
    ],
)
def test_wrong_usage(files: Path, words: tuple[str, ...]) -> None:
    assert run(files, *words).exit_code == 2
    assert not (files / "a.json").exists()


def test_a_bundle_that_is_none_is_told_without_asking_anyone(files: Path) -> None:
    done = run(
        files, "verify-attestation", "report.json", "--identity", "me@example.org", "--issuer", "https://example.org"
    )
    assert done.exit_code == 3
    assert "no Sigstore bundle" in done.stderr


def test_hostile_text_of_a_signer_reaches_no_terminal(files: Path) -> None:
    content = json.loads(statement(REPORT, RAW))
    content["predicate"] |= {"model": {"name": "\x1b]0;x\x07\u202e", "digest": 7}, "verdict": "\x1b[31m", "tool": None}
    (files / "a.json").write_bytes(signed_payload(json.dumps(content).encode()))
    done = run(files, "verify-attestation", "a.json", "--key", "pub.pem")
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output
