"""Titles of licence texts: the well-known ones, their look-alikes, and files that cannot be read."""

import json
from importlib.resources import files

import pytest
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from quickhub import pinned, quick_hub

from scanner.facts import collect
from scanner.records import Skip
from scanner.side.licence_files import MAX_BYTES, MAX_FILES, known_licence, read_licence_files

APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"
GPL = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n\n Copyright"
KNOWN = [
    ("MIT License\n\nCopyright (c) 2024 A\n\nPermission is hereby granted", "mit"),
    ("# The MIT License (MIT)\r\n\r\nCopyright", "mit"),
    (APACHE, "apache-2.0"),
    ("Copyright 2020 Somebody\n" + APACHE, "apache-2.0"),
    (GPL, "gpl-3.0"),
    (GPL.replace("GENERAL", "AFFERO GENERAL").replace("29 June", "19 November"), "agpl-3.0"),
    ("BSD 3-Clause License\n\nCopyright", "bsd-3-clause"),
    ("\ufeffAttribution-NonCommercial-ShareAlike 4.0 International\n\n=====", "cc-by-nc-sa-4.0"),
    ("Creative Commons Legal Code\n\nAttribution-NoDerivs 3.0 Unported\n", "cc-by-nd-3.0"),
    ("Attribution 4.0 International", "cc-by-4.0"),
    ("Creative Commons Legal Code\n\nCC0 1.0 Universal\n", "cc0-1.0"),
    ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version Release Date: April 18, 2024", "llama3"),
    ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n", "llama3.1"),
    ("CreativeML Open RAIL-M\ndated August 22, 2022", "creativeml-openrail-m"),
    ("Gemma Terms of Use\n\nLast modified", "gemma"),
]


@pytest.mark.parametrize(("text", "name"), KNOWN, ids=[f"{name}{i}" for i, (_, name) in enumerate(KNOWN)])
def test_texts_are_known_by_their_titles(text: str, name: str) -> None:
    assert known_licence(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Modified MIT License\n\nCopyright",
        "This model is released under the MIT License.",
        "Not the Apache License, Version 2.0",
        "a\nb\nc\nd\ne\nf\nMIT License",
        "MIT License for the code, CC BY-NC for the weights",
        "Attribution-NonCommercial\n\n\n",
        "\x00" * 5_000,
        "-" * 500_000,
        "# " * 300_000,
    ],
)
def test_other_texts_are_not(text: str) -> None:
    assert known_licence(text) is None


def test_every_name_is_one_of_the_table_or_well_known() -> None:
    table = json.loads(files("audit.card").joinpath("licences.json").read_text(encoding="utf-8"))["licences"]
    assert {name for _, name in KNOWN} - set(table) == {"cc-by-nd-3.0"}


def test_files_at_the_root_that_are_about_the_model(hub_server: LocalHub) -> None:
    texts = {"LICENSE": "MIT License\n", "LICENSE.md": "own words", "LICENSE-CODE": GPL, "sub/LICENSE": GPL, "licensed.py": GPL,
             "COPYING": "x" * (MAX_BYTES + 1), "LICENSE.txt": "ISC License"}  # fmt: skip
    hub_server.add_repo("org/many", texts)
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/many"), hub)
    hub_server.faults.add(Status(code=403), path="LICENSE.txt", times=FOR_EVER)
    skips: list[Skip] = []
    found = read_licence_files(facts, hub, skips)
    assert [(f.path, f.licence) for f in found] == [("LICENSE", "mit"), ("LICENSE.md", None)]
    assert {skip.what for skip in skips} == {"COPYING", "LICENSE.txt"}


def test_many_files_cost_few_requests_and_are_named(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/many", {f"LICENSE.{n:03}": f"ISC License {n}" for n in range(60)})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/many"), hub)
    hub_server.faults.add(Status(code=403), path="LICENSE.", times=FOR_EVER)
    before, skips = hub.requests, []
    assert read_licence_files(facts, hub, skips) == ()
    assert hub.requests - before == MAX_FILES
    assert skips[0].what == f"{60 - MAX_FILES} more licence files"
