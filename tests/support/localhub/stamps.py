"""Times and identifiers in the Hub's form."""

import hashlib
from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """Return a moment as the Hub writes it: UTC, milliseconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def object_id(text: str) -> str:
    """Return a stable 24-digit identifier, in the form of the Hub's database ids."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]
