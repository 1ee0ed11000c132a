"""Looks at everything around the weights of one model; nothing here raises on what a repository holds."""

from scanner.hub import Hub
from scanner.records import RepoFacts, Skip
from scanner.side.code import find_auto_maps, inspect_code
from scanner.side.gguf_templates import gguf_templates
from scanner.side.parents import base_history
from scanner.side.programs import find_programs
from scanner.side.reading import Remembered, TextReader
from scanner.side.records import SideFacts
from scanner.side.templates import compare_templates
from scanner.side.tokenizer import compare_tokenizers
from scanner.side.values import compare_values


def look_around(
    candidate: RepoFacts,
    base: RepoFacts | None,
    hub: Hub,
    *,
    reader: TextReader | None = None,
    declared: str | None = None,
) -> SideFacts:
    """Hold the files around the candidate's weights against the base's.

    A file that both sides have, by the hashes of their listings, costs no request; every other small file is read
    once. What could not be read is among the skips.

    Args:
        candidate: facts of the candidate.
        base: facts of the base, None when there is none or it was refuted: everything then counts as new.
        hub: the reader of listings, ranges and histories.
        reader: reads small files; one that remembers, around ``hub``, when None.
        declared: the name under which the base was asked for, where it was declared.
    """
    read = reader or Remembered(hub)
    skips: list[Skip] = []
    return SideFacts(
        templates=compare_templates(
            candidate,
            base,
            read,
            skips,
            embedded=gguf_templates(candidate, base, hub, skips),
            embedded_base=lambda: gguf_templates(base, None, hub, skips),
        ),
        tokenizer=compare_tokenizers(candidate, base, read, skips),
        values=compare_values(candidate, base, read, skips),
        auto_maps=find_auto_maps(candidate, base, read, skips),
        code=inspect_code(candidate, base, read, skips),
        programs=find_programs(candidate, base, hub, skips),
        history=base_history(candidate, base, declared, hub, skips),
        skips=tuple(dict.fromkeys(skips)),
    )
