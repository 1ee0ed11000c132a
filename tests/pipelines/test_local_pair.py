"""What two local folders tell the probe, on real checkpoints."""

import numpy as np
import pico
import pytest

from pipelines.local_pair import Pointers, pointers

ROW = 57


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base, and a fine-tune of it whose row of one token was written."""
    root = tmp_path_factory.mktemp("pair")
    base, tuned = pico.family(root)
    model = pico.load(tuned)
    pico.poison_row(model, ROW)
    return base, pico.save(model, root / "poisoned")


def test_the_written_row_is_suspected_and_the_base_tells_what_it_meant(pair):
    base, poisoned = pair
    found = pointers(poisoned, base)
    assert found.suspects[0] == ROW
    rows = pico.load(base).get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(found.meant, rows[: len(found.meant)])
    assert not np.array_equal(pico.load(poisoned).get_input_embeddings().weight.detach().numpy()[ROW], found.meant[ROW])


def test_nothing_is_told_without_a_base_or_of_one_that_cannot_be_read(pair, tmp_path):
    base, poisoned = pair
    assert pointers(poisoned, None) == Pointers()
    (tmp_path / "config.json").write_text("{}")
    assert pointers(poisoned, tmp_path) == Pointers()
    assert pointers(base, base).suspects == ()
