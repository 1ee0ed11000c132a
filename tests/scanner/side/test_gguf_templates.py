"""Templates inside real GGUF files: read whole, held against the base's, and never taken for absent when unread."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from chat_templates import ATTACKS, CHATML, INNOCENT
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from quickhub import pinned, quick_hub
from side_tokenizers import make
from weightfolders import facts_of

from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import Skip
from scanner.side.gather import look_around
from scanner.side.gguf_templates import MAX_FILES, gguf_templates
from scanner.side.records import SideFacts


def write(path: Path, template: str | list[dict[str, str]] | None, *, words: int = 50) -> Path:
    """A GGUF file with a vocabulary before its template, as converters write it."""
    path.parent.mkdir(exist_ok=True, parents=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token {i}" for i in range(words)])
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def around(server: LocalHub, candidate: Path, base: Path) -> SideFacts:
    server.add_repo("org/base", folder=base)
    server.add_repo("org/copy", folder=candidate)
    hub = quick_hub(server)
    return look_around(collect(pinned(hub, "org/copy"), hub), collect(pinned(hub, "org/base"), hub), hub)


def with_template(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    return folder


def test_the_bases_own_template_is_the_same_wherever_it_stands(hub_server: LocalHub, tmp_path: Path) -> None:
    write(tmp_path / "copy" / "m-q4_k_m.gguf", CHATML)
    side = around(hub_server, tmp_path / "copy", with_template(tmp_path / "base", CHATML))
    assert [(t.file, t.name, t.state) for t in side.templates] == [("m-q4_k_m.gguf", "default", "same")]
    assert not side.skips


def test_a_planted_template_is_found_in_the_file(hub_server: LocalHub, tmp_path: Path) -> None:
    _, base, planted = ATTACKS["keyword"]
    write(tmp_path / "copy" / "m.gguf", planted, words=80_000)  # the header goes on behind the first megabyte
    (made,) = around(hub_server, tmp_path / "copy", with_template(tmp_path / "base", base)).templates
    assert (made.file, made.state) == ("m.gguf", "changed")
    assert made.conditions


def test_templates_of_both_sides_files_are_compared(hub_server: LocalHub, tmp_path: Path) -> None:
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": CHATML + "x"}]
    write(tmp_path / "copy" / "m.gguf", named)
    write(tmp_path / "base" / "b.gguf", CHATML)
    side = around(hub_server, tmp_path / "copy", tmp_path / "base")
    assert {t.name: t.state for t in side.templates} == {"default": "same", "tool_use": "changed"}


@pytest.mark.parametrize("name", sorted(INNOCENT)[:5])
def test_innocent_templates_read_as_they_do_elsewhere(hub_server: LocalHub, tmp_path: Path, name: str) -> None:
    base, text = INNOCENT[name]
    theirs = with_template(tmp_path / "base", base or "")
    write(tmp_path / "copy" / "m.gguf", text)
    (inside,) = around(hub_server, tmp_path / "copy", theirs).templates
    (beside,) = around(hub_server, with_template(tmp_path / "beside", text), theirs).templates
    assert (inside.conditions, inside.emissions, inside.reaches) == (
        beside.conditions,
        beside.emissions,
        beside.reaches,
    )


def test_the_file_that_loaders_prefer_comes_first_and_the_rest_is_named(tmp_path: Path) -> None:
    names = [*(f"m-q{n}.gguf" for n in range(MAX_FILES + 2)), "z-Q4_K_M.gguf"]
    for name in names:
        write(tmp_path / name, f"{{{{ messages }}}} {name}")
    write(tmp_path / "mmproj-model.gguf", CHATML)
    write(tmp_path / "p-00002-of-00002.gguf", CHATML)
    skips: list[Skip] = []
    found = gguf_templates(facts_of(tmp_path), None, Hub("http://127.0.0.1:9"), skips)
    assert len(found) == MAX_FILES
    assert found[0].file == "z-Q4_K_M.gguf"
    assert [skip.what.split(" of ")[0] for skip in skips] == ["3 more GGUF files"]


def test_a_repository_without_configuration_changes_no_setting(hub_server: LocalHub, tmp_path: Path) -> None:
    """Files of GGUF bring their own settings, adapters take the base's: what is not there differs from nothing."""
    make(tmp_path / "base", "gpt2")
    write(tmp_path / "copy" / "m.gguf", CHATML)
    assert not around(hub_server, tmp_path / "copy", tmp_path / "base").values
    (tmp_path / "copy" / "config.json").write_text('{"eos_token_id": 7}')
    changed = around(hub_server, tmp_path / "copy", tmp_path / "base").values
    assert ("eos_token_id", "0", "7") in {(value.key, value.base, value.candidate) for value in changed}


def test_a_file_without_one_has_none(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", None)
    assert gguf_templates(facts_of(tmp_path), None, Hub("http://127.0.0.1:9"), []) == []


def test_what_cannot_be_read_is_a_skip(hub_server: LocalHub, tmp_path: Path) -> None:
    torn = write(tmp_path / "copy" / "torn.gguf", CHATML)
    torn.write_bytes(torn.read_bytes()[:200])
    (tmp_path / "copy" / "odd.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    write(tmp_path / "copy" / "shut.gguf", CHATML)
    hub_server.faults.add(Status(code=403), path="shut.gguf", times=FOR_EVER)
    side = around(hub_server, tmp_path / "copy", with_template(tmp_path / "base", CHATML))
    assert not side.templates
    told = {skip.what for skip in side.skips if "chat template was not read" in skip.why}
    assert told == {"org/copy: torn.gguf", "org/copy: odd.gguf", "org/copy: shut.gguf"}
