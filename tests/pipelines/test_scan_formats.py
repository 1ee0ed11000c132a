"""`hubaudit scan` of the forms in which people publish weights, and of files of these forms that lie."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ggufs
import pefts
import pico
import pytest
import torch
from click.testing import CliRunner
from localhub.server import LocalHub
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from pipelines.cli import cli

WEIGHTS = "model.safetensors"
CARD = "---\nbase_model: pico/base\n---\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base of eight layers, its fine-tune, and an adapter."""
    root = tmp_path_factory.mktemp("formats")
    base = pefts.save_base(pefts.llama(layers=8), root / "base")
    model = LlamaForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.0004 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(root / "tuned")
    (root / "tuned" / "README.md").write_text(CARD)
    adapter = pefts.save_adapter(
        pefts.llama(layers=8),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        root / "adapter",
        name="pico/base",
    )
    return {"base": base, "tuned": root / "tuned", "adapter": adapter}


@pytest.fixture
def hub(hub_server: LocalHub, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    hub_server.add_repo("pico/base", folder=made["base"])
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_TIMEOUT", "10")
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "4")
    return hub_server


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of them that a test may spoil."""
    return lambda name: Path(shutil.copytree(made[name], tmp_path / name))


def scan(folder: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run the command: a sentence and a report, whatever happens."""
    target = folder / "report.json"
    done = CliRunner().invoke(
        cli, ["--quiet", "scan", *arguments, "--format", "json", "--output", str(target), "--format", "table"]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    assert target.exists(), done.output
    return done.exit_code, done.output, json.loads(target.read_text())


def skipped(report: dict[str, Any]) -> str:
    return " ".join(f"{skip['what']}: {skip['why']}" for skip in report["coverage"]["skipped"])


def is_whole(report: dict[str, Any]) -> bool:
    return report["coverage"]["parameters_compared"] == report["coverage"]["parameters_total"] > 0


def test_a_base_with_fused_projections_is_compared_with_a_candidate_in_parts(
    hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    base = copy("base")
    tensors = load_file(base / WEIGHTS)
    fused = {n: v for n, v in tensors.items() if not any(f"{part}_proj" in n for part in ("q", "k", "v", "gate", "up"))}
    for layer in range(8):
        at = f"model.layers.{layer}."
        fused[f"{at}self_attn.qkv_proj.weight"] = torch.cat([tensors[f"{at}self_attn.{p}_proj.weight"] for p in "qkv"])
        fused[f"{at}mlp.gate_up_proj.weight"] = torch.cat([tensors[f"{at}mlp.{p}_proj.weight"] for p in ("gate", "up")])
    save_file(fused, base / WEIGHTS, metadata={"format": "pt"})
    hub.add_repo("pico/fused", folder=base)
    hub.add_repo("pico/tuned", folder=copy("tuned"))
    code, _, report = scan(tmp_path, "pico/tuned", "--base", "pico/fused")
    assert report["lineage"]["status"] == "verified"
    assert is_whole(report)
    assert "part by part" in skipped(report)
    assert {row["role"] for row in report["drift"]} >= {"query", "key", "value", "mlp_gate"}
    assert code in {0, 3}, report["verdict"]


def test_a_quantised_copy_in_gguf(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    base = pico.make_base("llama", layers=6)
    hub.add_repo("pico/wide", folder=pico.save(base, tmp_path / "wide", kind="llama"))
    ggufs.write_gguf(base, tmp_path / "gguf" / "m-Q8_0.gguf", ggufs.encode_with("Q8_0"))
    (tmp_path / "gguf" / "README.md").write_text(
        CARD.replace("---\n", "---\nbase_model_relation: quantized\n", 1).replace("pico/base", "pico/wide")
    )
    hub.add_repo("pico/gguf", folder=tmp_path / "gguf")
    _, _, report = scan(tmp_path, "pico/gguf")
    assert report["lineage"]["status"] == "verified"
    assert report["lineage"]["relation"] == "quantized"
    assert is_whole(report)
    assert [finding for finding in report["findings"] if finding["severity"] in {"high", "critical"}] == []


def longer(path: Path, offset: int, value: int) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into("<Q", raw, offset, value)
    path.write_bytes(raw)


@pytest.mark.parametrize("offset", [8, 16], ids=["tensors", "pairs"])
@pytest.mark.parametrize("count", [2**63, 10**9, 1])
def test_gguf_files_with_lying_counts(
    hub: LocalHub, made: dict[str, Path], tmp_path: Path, offset: int, count: int
) -> None:
    (tmp_path / "gguf").mkdir()
    model = LlamaForCausalLM.from_pretrained(made["base"])
    ggufs.write_gguf(model, tmp_path / "gguf" / "m.gguf", ggufs.encode_with("F16"))
    longer(tmp_path / "gguf" / "m.gguf", offset, count)
    (tmp_path / "gguf" / "README.md").write_text(CARD)
    hub.add_repo("pico/gguf", folder=tmp_path / "gguf")
    code, output, report = scan(tmp_path, "pico/gguf")
    assert code == 3
    assert "m.gguf" in output
    assert report["verdict"]["outcome"] == "inconclusive"
    assert report["lineage"]["claims"], "what the card says was read all the same"


@pytest.mark.parametrize(
    "rank", [0, -4, 10**12, "many", None, 3], ids=["none", "negative", "huge", "text", "missing", "another"]
)
def test_adapters_with_impossible_ranks(
    hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path, rank: object
) -> None:
    adapter = copy("adapter")
    told = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(told | {"r": rank}))
    hub.add_repo("pico/adapter", folder=adapter)
    code, output, report = scan(tmp_path, "pico/adapter")
    assert code in {1, 3}, "never clean"
    assert report["verdict"]["outcome"] != "pass"
    assert "rank" in output + skipped(report)


def test_an_adapter_that_is_not_finite(hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = copy("adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(value for name, value in tensors.items() if "lora_A" in name)[0, 0] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    hub.add_repo("pico/adapter", folder=adapter)
    code, _, report = scan(tmp_path, "pico/adapter")
    assert code in {1, 3}
    assert report["verdict"]["outcome"] != "pass"
    assert "NaN" not in json.dumps(report["drift"])


def test_an_index_that_maps_a_tensor_to_two_files(
    hub: LocalHub, made: dict[str, Path], copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """JSON allows a key twice; readers disagree on which one counts."""
    tuned = copy("tuned")
    tensors = load_file(tuned / WEIGHTS)
    names = list(tensors)
    (tuned / WEIGHTS).unlink()
    save_file({name: tensors[name] for name in names[:5]}, tuned / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] for name in names[5:]}, tuned / "model-00002-of-00002.safetensors")
    entries = [f'"{name}": "model-0000{1 + (i >= 5)}-of-00002.safetensors"' for i, name in enumerate(names)]
    entries.append(f'"{names[0]}": "model-00002-of-00002.safetensors"')
    (tuned / "model.safetensors.index.json").write_text('{"weight_map": {' + ", ".join(entries) + "}}")
    hub.add_repo("pico/tuned", folder=tuned)
    code, output, report = scan(tmp_path, "pico/tuned")
    assert code == 3
    assert "index" in output
    assert report["verdict"]["outcome"] == "inconclusive"


def test_two_shards_that_hold_the_same_tensor(hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path) -> None:
    tuned = copy("tuned")
    tensors = load_file(tuned / WEIGHTS)
    name = next(iter(tensors))
    (tuned / WEIGHTS).unlink()
    save_file(tensors, tuned / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] + 1}, tuned / "model-00002-of-00002.safetensors")
    index = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {name: "model-00002-of-00002.safetensors"}
    (tuned / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    hub.add_repo("pico/tuned", folder=tuned)
    code, _, report = scan(tmp_path, "pico/tuned")
    assert code != 0
    assert report["verdict"]["outcome"] != "pass"


def test_a_base_that_needs_remote_code_is_compared_and_nothing_of_it_is_run(
    hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    base, witness = copy("base"), tmp_path / "ran"
    told = json.loads((base / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}}
    (base / "config.json").write_text(json.dumps(told | code | {"model_type": "made-up"}))
    (base / "modeling.py").write_text(f"open({str(witness)!r}, 'w').write('ran')\n")
    tensors = load_file(base / WEIGHTS)
    save_file({n.replace("self_attn", "mixer"): v for n, v in tensors.items()}, base / WEIGHTS)
    hub.add_repo("pico/coded", folder=base)
    hub.add_repo("pico/tuned", folder=copy("tuned"))
    _, _, report = scan(tmp_path, "pico/tuned", "--base", "pico/coded")
    assert not witness.exists()
    assert report["lineage"]["status"] == "verified"
    assert is_whole(report), "tensors without a common name are paired by content"


def test_a_card_whose_bases_contain_the_model_itself(
    hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    tuned = copy("tuned")
    (tuned / "README.md").write_text("---\nbase_model:\n- pico/tuned\n- pico/base\n---\n")
    hub.add_repo("pico/tuned", folder=tuned)
    _, _, report = scan(tmp_path, "pico/tuned")
    assert report["lineage"]["base"]["repo_id"] == "pico/base"
    assert any("itself" in text for text in report["lineage"].get("conflicts", [])) or "itself" in json.dumps(report)


def test_a_list_of_candidates_that_contains_the_model_itself(
    hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    hub.add_repo("pico/tuned", folder=copy("tuned"))
    names = tmp_path / "names.txt"
    names.write_text("pico/tuned\npico/base\n")
    done = CliRunner().invoke(cli, ["--quiet", "lineage", "pico/tuned", "--candidates", str(names)])
    assert done.exit_code == 0, done.output
    assert "it is the model itself" in done.output
    assert "pico/base" in done.output


def test_two_models_in_sub_folders_are_not_guessed_between(
    hub: LocalHub, made: dict[str, Path], copy: Callable[[str], Path], tmp_path: Path
) -> None:
    tuned = copy("tuned")
    for folder in ("text_encoder", "decoder"):
        (tuned / folder).mkdir()
        shutil.copy(tuned / WEIGHTS, tuned / folder / WEIGHTS)
    hub.add_repo("pico/beside", folder=tuned)
    code, _, report = scan(tmp_path, "pico/beside")
    assert is_whole(report)
    assert "in a sub-folder, not part of the model at the root" in skipped(report)
    (tuned / WEIGHTS).unlink()
    hub.add_repo("pico/folders", folder=tuned)
    code, output, report = scan(tmp_path, "pico/folders")
    assert code == 3
    assert "sub-folders" in output
    assert report["verdict"]["outcome"] == "inconclusive"


def test_a_variant_is_read_and_said(hub: LocalHub, copy: Callable[[str], Path], tmp_path: Path) -> None:
    tuned = copy("tuned")
    halved = {name: value.half() for name, value in load_file(tuned / WEIGHTS).items()}
    save_file(halved, tuned / "model.fp16.safetensors", metadata={"format": "pt"})
    (tuned / WEIGHTS).unlink()
    (tuned / "onnx").mkdir()
    (tuned / "onnx" / "model.onnx").write_bytes(b"onnx")
    (tuned / "flax_model.msgpack").write_bytes(b"flax")
    hub.add_repo("pico/half", folder=tuned)
    _, _, report = scan(tmp_path, "pico/half")
    assert is_whole(report)
    assert "variant='fp16'" in skipped(report)
    assert "Flax msgpack" in skipped(report)
    assert "ONNX" in skipped(report)
