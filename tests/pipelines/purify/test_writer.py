"""The new folder, the patch, and the way back: byte for byte, or a clear refusal."""

import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines.progress import Quiet
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import PurifyFailed, WholeTensors
from pipelines.purify.patch import PATCH_FILE
from pipelines.purify.rewriting import file_digest
from pipelines.purify.writer import Written, check_output, need_room, revert, unfinished, write_model
from scanner.errors import BadReference, CouldNotConclude, NothingToCompare


def model_folder(root: Path, tensors: dict[str, torch.Tensor], **files: str) -> Path:
    root.mkdir(parents=True)
    (root / "config.json").write_text('{"model_type": "bert"}')
    for name, text in files.items():
        (root / name).write_text(text)
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt", "note": "kept"})
    return root


def write(folder: Path, changed: dict[str, torch.Tensor], out: Path) -> Written:
    with unfinished(out) as part:
        return write_model(open_checkpoint(folder), WholeTensors(changed), part, Quiet())


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_changes_the_patch_leads_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("patch")
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
    shape = data.draw(st.sampled_from([(), (7,), (5, 3), (4, 2, 3), (0, 4), (64, 64)]))
    seed = data.draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    tensor, other = torch.randn(shape).to(dtype), torch.randn(3, 3)
    changed = tensor.clone()
    share = data.draw(st.sampled_from([0.0, 0.02, 0.4, 1.0]))
    mask = torch.rand(shape) < share
    changed[mask] = torch.randn(shape).to(dtype)[mask]
    folder = model_folder(tmp_path / "model", {"a.weight": tensor, "b": other})
    written = write(folder, {"a.weight": changed}, tmp_path / "out")
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    differing = int((changed.view(bits) != tensor.view(bits)).sum()) if tensor.numel() else 0
    assert sum(written.changed.values()) == differing
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["a.weight"], changed)
    assert revert(tmp_path / "out", tmp_path / "back", Quiet()) == ()
    assert digests(tmp_path / "back") == digests(folder)


def test_the_smallest_form_is_stored(tmp_path: Path) -> None:
    table = torch.randn(200, 50)
    row, spot, all_of_it = table.clone(), table.clone(), table + 1
    row[17] += 1
    spot[3, 4] += 1
    sizes = {}
    for name, changed in {"row": row, "spot": spot, "all": all_of_it}.items():
        folder = model_folder(tmp_path / name, {"t": table})
        write(folder, {"t": changed}, tmp_path / f"{name}-out")
        with safe_open(tmp_path / f"{name}-out" / PATCH_FILE, "pt") as patch:
            sizes[name] = {key: tuple(patch.get_tensor(key).shape) for key in patch.keys()}  # noqa: SIM118
            (entry,) = json.loads(patch.metadata()["entries"])
            assert entry["form"] == {"row": "rows", "spot": "dimensions", "all": "whole"}[name]
    assert sizes == {
        "row": {"0.at": (1,), "0.before": (1, 50)},
        "spot": {"0.at": (1,), "0.before": (1,)},
        "all": {"0.before": (200, 50)},
    }


def test_all_side_files_are_there_and_stale_weights_are_not(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", {"t": torch.ones(4, 4)}, **{"vocab.txt": "a\nb"})
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "notes.md").write_text("kept")
    (folder / "pytorch_model.bin").write_bytes(b"the old weights")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"the old weights")
    out = tmp_path / "out"
    written = write(folder, {"t": torch.zeros(4, 4)}, out)
    assert set(written.left_out) == {"pytorch_model.bin", "onnx/model.onnx"}
    assert not (out / "onnx").exists()
    assert (out / "deep" / "er" / "notes.md").read_text() == "kept"
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "kept"}
    assert revert(out, tmp_path / "back", Quiet()) == ("onnx/model.onnx", "pytorch_model.bin")


def test_the_result_loads_with_tokenizer_and_config(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = pico.save(pico.make_base("llama"), tmp_path / "llama", kind="llama")
    checkpoint = open_checkpoint(base)
    name = next(name for name in checkpoint.table if "down_proj" in name)
    write(base, {name: checkpoint.whole(name) * 2}, tmp_path / "out")
    model = pico.load(tmp_path / "out")
    assert torch.equal(dict(model.named_parameters())[name], checkpoint.whole(name) * 2)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").vocab_size == pico.VOCABULARY


@pytest.mark.parametrize("where", ["model", "model/inside", "taken", "file", "nowhere/out"])
def test_a_bad_place_is_refused(tmp_path: Path, where: str) -> None:
    folder = model_folder(tmp_path / "model", {"t": torch.ones(2, 2)})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").write_text("precious")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BadReference):
        check_output(tmp_path / where, folder)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", folder)


def test_a_link_to_the_source_is_the_source(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", {"t": torch.ones(2, 2)})
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BadReference):
        check_output(tmp_path / "link", folder)
    with pytest.raises(BadReference):
        check_output(tmp_path / "link" / "out", folder)


class FullDisk:
    """Edits during which the disk fills up."""

    names = frozenset({"t"})

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def panel(self, name: str, rows: tuple[int, int], stored: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CouldNotConclude),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (PurifyFailed("NaN"), PurifyFailed),
    ],
)
def test_whatever_stops_it_nothing_is_left(tmp_path: Path, error: BaseException, expected: type[BaseException]) -> None:
    folder = model_folder(tmp_path / "model", {"t": torch.ones(2, 2)})
    with pytest.raises(expected), unfinished(tmp_path / "out") as part:
        write_model(open_checkpoint(folder), FullDisk(error), part, Quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_too_little_room_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(CouldNotConclude, match="make room"):
        need_room(tmp_path, 10**18)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"unknown": torch.ones(2, 2)}, "does not hold"),
        ({"t": torch.ones(2, 2, dtype=torch.float16)}, "stores"),
        ({"t": torch.ones(2, 3)}, "made t"),
    ],
)
def test_edits_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, torch.Tensor], match: str) -> None:
    folder = model_folder(tmp_path / "model", {"t": torch.ones(2, 2)})
    with pytest.raises(PurifyFailed, match=match):
        write(folder, changed, tmp_path / "out")


def _purified(tmp_path: Path) -> Path:
    table = torch.randn(40, 8)
    folder = model_folder(tmp_path / "model", {"t": table})
    changed = table.clone()
    changed[5] = 0
    write(folder, {"t": changed}, tmp_path / "out")
    return tmp_path / "out"


def _flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def _edit_header(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])


def _entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def edit(header: dict[str, Any]) -> None:
        entries = json.loads(header["__metadata__"]["entries"])
        entries[0] |= changes
        header["__metadata__"]["entries"] = json.dumps(entries)

    return edit


def _rename_file(header: dict[str, Any]) -> None:
    files = json.loads(header["__metadata__"]["files"])
    files["../../escaped"] = files.pop("config.json")
    header["__metadata__"]["files"] = json.dumps(files)


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: _flip(out / "model.safetensors", -1),
        lambda out: _flip(out / "config.json", 3),
        lambda out: _flip(out / PATCH_FILE, -1),
        lambda out: (out / "config.json").unlink(),
        lambda out: (out / PATCH_FILE).unlink(),
        lambda out: (out / PATCH_FILE).write_bytes(b"junk"),
        lambda out: (out / PATCH_FILE).write_bytes(b"\xff" * 8 + b"{}"),
        lambda out: _edit_header(out / PATCH_FILE, _entry(rows=[0, 10**9])),
        lambda out: _edit_header(out / PATCH_FILE, _entry(columns=0)),
        lambda out: _edit_header(out / PATCH_FILE, _entry(start=-8, end=0)),
        lambda out: _edit_header(out / PATCH_FILE, _entry(form="whole")),
        lambda out: _edit_header(out / PATCH_FILE, _entry(dtype="Q3")),
        lambda out: _edit_header(out / PATCH_FILE, _entry(file="other")),
        lambda out: _edit_header(out / PATCH_FILE, lambda header: header.pop("0.at")),
        lambda out: _edit_header(out / PATCH_FILE, lambda header: header["0.at"].update(data_offsets=[0, 10**12])),
        lambda out: _edit_header(out / PATCH_FILE, _rename_file),
    ],
)
def test_a_changed_or_hostile_folder_is_not_reverted(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    out = _purified(tmp_path)
    damage(out)
    with pytest.raises(CouldNotConclude):
        revert(out, tmp_path / "back", Quiet())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_checkpoints_that_cannot_be_written_back_are_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "quantised", {"t": torch.ones(2, 2)})
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    with pytest.raises(CouldNotConclude, match="quantised"):
        open_checkpoint(folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(CouldNotConclude, match="merge"):
        open_checkpoint(adapter)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save({"t": torch.ones(2, 2)}, pickled / "pytorch_model.bin")
    with pytest.raises(CouldNotConclude, match="safetensors only"):
        open_checkpoint(pickled)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NothingToCompare):
        open_checkpoint(tmp_path / "nothing")
