"""Signs without a key of one's own, through Sigstore: a certificate for an identity, and an entry in a public log.

This needs the network and an identity (a workflow's token, or a browser), and it publishes: the identity, the time
and the digest of the statement stay in Sigstore's log for good. That is why it has to be asked for.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.attest import MAX_ENVELOPE_BYTES, BadEnvelope, NotAttested, judged
from reports.attestation import statement
from scanner.errors import CouldNotConclude

if TYPE_CHECKING:
    from audit.records import AuditReport


class KeylessFailed(CouldNotConclude):
    """Sigstore could not be used: no identity, or no network."""


def sign_keyless(report: "AuditReport", raw: bytes) -> bytes:
    """Return a Sigstore bundle (JSON) with the signed statement.

    Raises:
        KeylessFailed: no identity, no network, or the service refused.
    """
    from sigstore.dsse import Statement
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken, Issuer, detect_credential
    from sigstore.sign import SigningContext

    content = Statement(statement(report, raw))
    try:
        trust = ClientTrustConfig.production()
        ambient = detect_credential()
        token = IdentityToken(ambient) if ambient else Issuer(trust.signing_config.get_oidc_url()).identity_token()
        with SigningContext.from_trust_config(trust).signer(token) as signer:
            return signer.sign_dsse(content).to_json().encode() + b"\n"
    except Exception as error:
        raise KeylessFailed(
            f"Sigstore could not sign ({type(error).__name__}: {error}); nothing was written. "
            "Sign with a key of your own (--key), or try again with network and identity."
        ) from error


def verify_keyless(bundle: bytes, *, identity: str, issuer: str, report: bytes | None = None) -> Mapping[str, Any]:
    """Return the predicate that an identity signed.

    Args:
        bundle: the file that ``sign_keyless`` made.
        identity: who has to have signed: an e-mail address, or a workflow's URL.
        issuer: who vouches for that identity, as a URL.
        report: the report file that it should attest; not compared when None.

    Raises:
        BadEnvelope: not a bundle.
        NotAttested: the signature, the identity or the log entry does not hold, or it attests something else.
        KeylessFailed: Sigstore's trusted keys could not be fetched.
    """
    from sigstore.errors import Error, VerificationError
    from sigstore.models import Bundle, InvalidBundle
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    try:
        if len(bundle) > MAX_ENVELOPE_BYTES:
            raise ValueError("size")
        read = Bundle.from_json(bundle)
    except (InvalidBundle, ValueError, RecursionError):
        raise BadEnvelope("The attestation is truncated or no Sigstore bundle, so it attests nothing.") from None
    try:
        verifier = Verifier.production()
    except Exception as error:
        raise KeylessFailed(f"Sigstore's trusted keys could not be fetched ({error}); try again later.") from error
    try:
        payload_type, payload = verifier.verify_dsse(read, Identity(identity=identity, issuer=issuer))
    except (VerificationError, Error) as error:
        raise NotAttested(f"Sigstore does not confirm the attestation: {error}.") from None
    return judged(payload, payload_type, report)
