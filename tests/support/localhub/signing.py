"""Signed addresses, as object stores use them: whoever holds one needs no token until it expires."""

import hashlib
import hmac
import secrets
import time

from localhub.wire import HubError, Request

_KEY = secrets.token_bytes(32)


def signed(path: str, seconds: float) -> str:
    """Return ``path`` with a signature that holds for ``seconds``."""
    expires = f"{time.time() + seconds:.3f}"
    return f"{path}?Expires={expires}&Signature={_signature(path, expires)}"


def check_signature(request: Request) -> None:
    """Check that the address was signed here and has not expired.

    Raises:
        HubError: 403 when it was not, or has.
        AssertionError: the client sent its Hub token along, which must never reach a foreign origin.
    """
    if request.headers.get("Authorization") is not None:
        raise AssertionError("the client sent Authorization to a foreign origin")
    expires = request.first("Expires") or "0"
    if not hmac.compare_digest(_signature(request.path, expires), request.first("Signature") or ""):
        raise HubError(403, "The signature is wrong")
    if float(expires) < time.time():
        raise HubError(403, "Request has expired")


def _signature(path: str, expires: str) -> str:
    return hmac.new(_KEY, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
