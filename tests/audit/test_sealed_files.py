"""The files whose hash the Hub declares are part of the report."""

import dataclasses

import evidence_for

from audit.records import FileRecord
from audit.sealing import FILES_LISTED, subject
from scanner.records import FileEntry


def test_files_with_a_hash_are_listed_by_path() -> None:
    files = (
        FileEntry(path="z.safetensors", size_bytes=9, sha256="cd" * 32),
        FileEntry(path="README.md", size_bytes=5),
        FileEntry(path="a.bin", size_bytes=7, sha256="ab" * 32),
    )
    plain = evidence_for.evidence(None)
    found = subject(dataclasses.replace(plain, candidate=dataclasses.replace(plain.candidate, files=files))).files
    assert found == (
        FileRecord(path="a.bin", size_bytes=7, sha256="ab" * 32),
        FileRecord(path="z.safetensors", size_bytes=9, sha256="cd" * 32),
    )


def test_a_repository_of_very_many_files_is_bounded() -> None:
    files = tuple(FileEntry(path=f"{n:06}", size_bytes=1, sha256="ab" * 32) for n in range(FILES_LISTED + 1))
    plain = evidence_for.evidence(None)
    found = subject(dataclasses.replace(plain, candidate=dataclasses.replace(plain.candidate, files=files))).files
    assert len(found) == FILES_LISTED
