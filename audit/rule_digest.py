"""One number for the rules that judged, so that an attestation can name them."""

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

from audit.rulebook import all_rules


@lru_cache(maxsize=1)
def rule_digest() -> str:
    """Return the SHA-256 (hex) of the rules: id, title, severity and weight of each, and the text of the rule book.

    Thresholds are named apart, by the digest of their profile.
    """
    digest = sha256()
    for rule in sorted(all_rules(), key=lambda rule: rule.id):
        digest.update(f"{rule.id}\x1f{rule.title}\x1f{rule.severity}\x1f{rule.weighs}\n".encode())
    digest.update(files(__package__).joinpath("rules.md").read_bytes())
    return digest.hexdigest()
