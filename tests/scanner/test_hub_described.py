from types import SimpleNamespace

import pytest
from huggingface_hub.hf_api import ModelInfo

from scanner.hub_described import MAX_CHARS, MAX_TAGS, commit_of, described, entry_of, is_commit

SHA = "0123456789abcdef0123456789abcdef01234567"


def info(**fields: object) -> ModelInfo:
    return ModelInfo(id="org/name", **fields)


@pytest.mark.parametrize(
    ("value", "bases", "relation"),
    [
        ({"relation": "finetune", "models": [{"_id": "x", "id": "org/base"}]}, ("org/base",), "finetune"),
        (["org/a", "org/b"], ("org/a", "org/b"), None),
        ([{"id": "org/a"}, 7, None, {"id": 3}], ("org/a",), None),
        ({"relation": 3, "models": "org/a"}, (), None),
        (None, (), None),
        ("org/a", (), None),
        (["x" * 5000], ("x" * MAX_CHARS,), None),
    ],
)
def test_base_models_come_in_two_shapes(value: object, bases: tuple[str, ...], relation: str | None) -> None:
    found = described(info(baseModels=value))
    assert (found["base_models"], found["relation"]) == (bases, relation)


def test_hostile_values_are_bounded_and_typed() -> None:
    found = described(
        info(tags=["a\ud800b", 3, None, *("t" * 900 for _ in range(3000))], gated="auto", downloads="many", sha="x"),
        {"scansDone": "yes", "filesWithIssues": [{"path": "a.pkl", "level": "unsafe"}, 5]},
    )
    assert found["tags"][0] == "a?b"
    assert len(found["tags"]) == MAX_TAGS
    assert max(map(len, found["tags"])) == MAX_CHARS
    assert (found["gated"], found["downloads"], found["sha"]) == ("auto", None, None)
    assert found["security"] == {"done": False, "issues": ({"path": "a.pkl", "level": "unsafe"},)}


def test_what_is_absent_is_none_or_empty() -> None:
    found = described(info())
    assert found["tags"] == ()
    assert found["gated"] is False
    assert found["security"] is None
    assert found["last_modified"] is None


@pytest.mark.parametrize("size", [-1, None, "12", 1.5])
def test_a_file_needs_a_size(size: object) -> None:
    item = SimpleNamespace(path="x", size=size, lfs=None, xet_hash=None, blob_id="b")
    with pytest.raises(ValueError, match="without a size"):
        entry_of(item)  # type: ignore[arg-type]


def test_a_commit_needs_a_hash() -> None:
    assert is_commit(SHA)
    assert not is_commit(SHA.upper())
    assert not is_commit(SHA + "\n")
    with pytest.raises(ValueError, match="without a hash"):
        commit_of({"id": "main", "title": "x", "date": "y"})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"F32": 10, "BF16": 4}, 48),
        ({"F32": 10, "made up": 4, "I8": "many", "U8": -1}, 40),
        ({"F32": 10**30}, None),
        ({}, None),
    ],
)
def test_weights_are_counted_in_bytes(parameters: dict[str, object], expected: int | None) -> None:
    assert described(info(safetensors={"parameters": parameters, "total": 14}))["weights_bytes"] == expected
