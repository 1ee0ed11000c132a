"""The base's rows by the candidate's ids: real checkpoints, remote and local, and vocabularies that differ."""

from dataclasses import replace

import numpy as np
import pytest
from pico import make_base, save
from quickhub import pinned, quick_hub

from scanner.facts import collect
from scanner.hub import Hub
from scanner.meanings import base_meanings
from scanner.records import RepoRef
from scanner.tokens import read_tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(make_base("bert"), tmp_path_factory.mktemp("base"))


def facts_of(folder):
    return collect(RepoRef(path=str(folder)), Hub())


def rows_of(kind="bert"):
    return make_base(kind).get_input_embeddings().weight.detach().numpy()


def test_the_rows_are_those_of_the_base(base):
    meant = base_meanings(None, facts_of(base), Hub())
    assert meant.dtype == np.float32
    np.testing.assert_array_equal(meant, rows_of()[: len(meant)])


def test_a_base_on_the_hub_is_read_by_ranges(base, hub_server):
    hub_server.add_repo("org/base", folder=base)
    hub = quick_hub(hub_server)
    meant = base_meanings(None, collect(pinned(hub, "org/base"), hub), hub)
    np.testing.assert_array_equal(meant, rows_of()[: len(meant)])


def test_tokens_that_the_base_does_not_know_meant_nothing_there(base):
    facts = facts_of(base)
    known = read_tokens(facts, Hub())
    texts = ("new", *known.texts[1:50], "other", *known.texts[51:], "added")
    meant = base_meanings(replace(known, texts=texts), facts, Hub())
    assert len(meant) == len(texts)
    assert np.flatnonzero(np.isnan(meant).any(axis=1)).tolist() == [0, 50, len(texts) - 1]
    np.testing.assert_array_equal(meant[1:50], rows_of()[1:50])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_table_is_found_in_other_architectures(kind, tmp_path):
    meant = base_meanings(None, facts_of(save(make_base(kind), tmp_path)), Hub())
    np.testing.assert_array_equal(meant, rows_of(kind)[: len(meant)])


def test_nothing_is_told_of_a_base_without_tokenizer_or_with_broken_weights(base, tmp_path):
    bare = save(make_base("bert"), tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert base_meanings(None, facts_of(bare), Hub()) is None
    broken = save(make_base("bert"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    assert base_meanings(None, facts_of(broken), Hub()) is None


def test_a_table_out_of_all_proportion_is_not_read(base, monkeypatch):
    monkeypatch.setattr("scanner.meanings.MOST_BYTES", 1000)
    assert base_meanings(None, facts_of(base), Hub()) is None
