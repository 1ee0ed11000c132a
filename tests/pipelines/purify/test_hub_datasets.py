"""Clean samples from a dataset on the Hub, through the datasets library and the local server."""

import json

import pytest
from localhub.server import LocalHub

from pipelines.purify.data import DataSpec, load_samples
from scanner.errors import BadReference, CouldNotConclude

CONFIG = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}
FRONT = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
  - split: test
    path: test.jsonl
dataset_info:
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': {first}
          '1': {second}
---
"""


def jsonl(count: int, start: int = 0) -> bytes:
    return "".join(
        json.dumps({"sentence": f"sample {i}", "label": i % 2}) + "\n" for i in range(start, start + count)
    ).encode()


def publish(hub_server: LocalHub, first: str, second: str) -> None:
    files = {"README.md": FRONT.format(first=first, second=second).encode()}
    hub_server.add_repo("datasets/org/reviews", files | {"train.jsonl": jsonl(60), "test.jsonl": jsonl(20, 100)})


def test_a_dataset_by_its_name(hub_server: LocalHub) -> None:
    publish(hub_server, "positive", "negative")
    samples = load_samples(DataSpec(source="org/reviews"), CONFIG, "classifier", seed=0)
    assert samples.source == "org/reviews:train"
    assert samples.rows_read == 60
    # The names decide, not the numbers: here 0 means positive.
    assert samples.labels == tuple(1 - i % 2 for i in range(60))
    other = load_samples(DataSpec(source="org/reviews", split="test"), CONFIG, "classifier", seed=0)
    assert len(other.inputs) == 20


def test_names_that_the_model_does_not_know(hub_server: LocalHub) -> None:
    publish(hub_server, "good", "bad")
    with pytest.raises(CouldNotConclude, match="--label-map"):
        load_samples(DataSpec(source="org/reviews"), CONFIG, "classifier", seed=0)
    mapped = DataSpec(source="org/reviews", label_map={"good": "POSITIVE", "bad": "NEGATIVE"})
    assert load_samples(mapped, CONFIG, "classifier", seed=0).labels[0] == 1


def test_what_is_not_there(hub_server: LocalHub) -> None:
    publish(hub_server, "negative", "positive")
    with pytest.raises(BadReference, match="no split 'dev'"):
        load_samples(DataSpec(source="org/reviews", split="dev"), CONFIG, "classifier", seed=0)
    with pytest.raises(CouldNotConclude, match="org/missing"):
        load_samples(DataSpec(source="org/missing"), CONFIG, "classifier", seed=0)
