"""Puts the sections that benchmarks make into the page that holds them."""

import re


def splice(text: str, made: str) -> str:
    """Replace a section in a page, or append it; its first and its last line are the marks that it is known by."""
    begin, *_, end = made.strip().splitlines()
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n?", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: made, text)
    return f"{text.rstrip()}\n\n{made}" if text.strip() else f"# Benchmarks\n\n{made}"
