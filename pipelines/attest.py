"""Signs an audit report with a key, and checks such a signature: an in-toto statement in a DSSE envelope.

The envelope and the key handling are securesystemslib's. Keys are PEM files: Ed25519, ECDSA (P-256, P-384, P-521) or
RSA. The envelope's key id is a hint only: the one key that the verifier trusts decides.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.attestation import PAYLOAD_TYPE, NotAnAttestation, attests, read_statement, statement
from scanner.errors import BadReference, CouldNotConclude, HubAuditError

if TYPE_CHECKING:
    from securesystemslib.signer import Signature, SSlibKey

    from audit.records import AuditReport

MAX_ENVELOPE_BYTES = 16 << 20
MAX_SIGNATURES = 100


class BadKey(BadReference):
    """The key file is no key that can be used, or its password is wrong."""


class BadEnvelope(CouldNotConclude):
    """The file is not a whole envelope, so it attests nothing."""


class NotAttested(HubAuditError):  # noqa: N818
    """The envelope is whole, and does not attest what it is asked to."""


def sign(report: "AuditReport", raw: bytes, key_pem: bytes, *, password: str | None = None) -> bytes:
    """Return a signed envelope as JSON, ending in a newline.

    Args:
        report: as read from ``raw``.
        raw: the bytes of the report file.
        key_pem: the private key.
        password: of the key, when it is encrypted.

    Raises:
        BadKey: the key cannot be used.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    try:
        private: Any = load_pem_private_key(key_pem, password.encode() if password else None)
        signer = CryptoSigner(private)
    except TypeError:
        hint = (
            "it is not encrypted; unset HUBAUDIT_KEY_PASSWORD"
            if password
            else "it is encrypted; set HUBAUDIT_KEY_PASSWORD"
        )
        raise BadKey(f"The private key cannot be read: {hint}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(
            "The private key cannot be read: it is no PEM file of an Ed25519, ECDSA or RSA key, or the password is "
            "wrong."
        ) from None
    envelope = Envelope(statement(report, raw), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), indent=1, sort_keys=True).encode("ascii") + b"\n"


def verify(envelope: bytes, key_pem: bytes, report: bytes | None = None) -> Mapping[str, Any]:
    """Return the predicate that the key's owner signed.

    Args:
        envelope: the file that ``sign`` made, or another DSSE envelope of the same statement.
        key_pem: the public key that is trusted.
        report: the report file that it should attest; not compared when None.

    Raises:
        BadKey: the key file is no public key.
        BadEnvelope: truncated or otherwise no envelope.
        NotAttested: signed with another key, changed since, about another report, or no audit attestation.
    """
    key = _public(key_pem)
    payload, payload_type, signatures = _opened(envelope)
    if not any(_verified(key, signature, payload, payload_type) for signature in signatures):
        raise NotAttested(
            "The signature does not match this key: the attestation was signed with another key, or changed since. "
            "Nothing in it can be relied on."
        )
    return judged(payload, payload_type, report)


def judged(payload: bytes, payload_type: str, report: bytes | None) -> Mapping[str, Any]:
    """Return the predicate of a payload whose signature holds.

    Raises:
        NotAttested: it is no audit attestation, or attests another report.
    """
    try:
        predicate = read_statement(payload, payload_type)
    except NotAnAttestation as error:
        raise NotAttested(f"The signature holds, but the attestation {error}.") from None
    if report is not None and not attests(predicate, report):
        raise NotAttested(
            "The signature holds, but for another report: this file is not, byte for byte, the one that was attested."
        )
    return predicate


def _public(key_pem: bytes) -> "SSlibKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(key_pem))
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("The key to verify with is no PEM file of an Ed25519, ECDSA or RSA public key.") from None


def _opened(raw: bytes) -> tuple[bytes, str, "list[Signature]"]:
    """Return payload, its type and the signatures of an envelope."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError

    if len(raw) > MAX_ENVELOPE_BYTES:
        raise BadEnvelope(f"The attestation is larger than {MAX_ENVELOPE_BYTES:,} bytes; it is none of hubaudit's.")
    try:
        content = json.loads(raw)
        signed = content["signatures"]
        if not isinstance(signed, list) or not 1 <= len(signed) <= MAX_SIGNATURES:
            raise ValueError("signatures")
        # The key id is optional in the specification, and two may be equal; the library's reader wants them apart.
        numbered = [{"sig": entry["sig"], "keyid": str(number)} for number, entry in enumerate(signed)]
        envelope = Envelope.from_dict({**content, "signatures": numbered})
        if not isinstance(envelope.payload_type, str):
            raise TypeError("payloadType")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError):
        raise BadEnvelope(
            "The attestation is truncated or no DSSE envelope, so it attests nothing; fetch it again, or make it again "
            "with `hubaudit attest`."
        ) from None
    return envelope.payload, envelope.payload_type, list(envelope.signatures.values())


def _verified(key: "SSlibKey", signature: "Signature", payload: bytes, payload_type: str) -> bool:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    try:
        # Under the name of the trusted key, whatever the envelope calls it: the id is a hint (DSSE, protocol 1.0.2).
        named = Signature(keyid=key.keyid, sig=signature.signature)
        key.verify_signature(named, Envelope(payload, payload_type, {}).pae())
    except UnverifiedSignatureError:
        return False
    return True
