"""Measures what honest quantisers leave: ``nice -n 19 python -m benchmarks.quantised``.

Four-bit copies of a real encoder and of fine-tunes of it are made with calibration text, by plain reference
implementations of the published methods, written in the layout of their libraries, and compared with their own
originals by the scanner. Every finding of HA801 to HA804 on them is a false alarm.

- round to nearest, and GPTQ with its error feedback (Frantar et al. 2022, arXiv 2210.17323, algorithm 1; dampening
  0.01 of the mean diagonal, groups of 128 or 32, with and without the columns sorted by activation);
- AWQ (Lin et al. 2023, arXiv 2306.00978): columns scaled by the mean activation to a power searched on a grid of 20,
  then each group's range searched on a grid of 10 down to half, queries and keys left out of the latter.

Each copy is measured once; a repeated run goes on where it was interrupted.
"""

import argparse
import csv
import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from benchmarks.zoo.measure import measure_folders
from benchmarks.zoo.tiers import get_tier
from pipelines.audit_repo import audit_repo
from scanner.hub import Hub
from scanner.records import DriftFacts

WORK: Final = Path("build/quantised")
RESULTS: Final = Path("benchmarks/results/quantised.json")
PAGE: Final = Path("docs/benchmarks.md")
TEXTS: Final = Path("../shared/data/sst2_train.csv.gz")
ZOO: Final = Path("build/zoo/real")
SENTENCES: Final = 160
SEED: Final = 0
_BEGIN, _END = "<!-- quantised:begin -->", "<!-- quantised:end -->"
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)

_HEAD: Final = """## Quantised copies

Made by `python -m benchmarks.quantised`: 4-bit copies of all-MiniLM-L6-v2 and of honest fine-tunes of it, each compared
with its own original, so that every finding is a false alarm. Quantisers are plain reference implementations with real
calibration text (160 sentences); the numbers are those of an encoder of 22 M parameters and hold for larger models only
as far as their activations are alike. The thresholds of HA801 and HA802 were set after these numbers, on the same
copies.

*Ratio*: error energy of a tensor over that of errors spread evenly within half a code. *Excess* of a tensor: log of its
ratio over the median of the others (HA802). *Excess* of a row: log of its ratio over the median row's (HA801). Largest
values over all tensors.

| quantiser, group | models | tensors | ratio: least, median, 99 %, most | tensor excess | row excess (99 %) \
| quantized | not passed | with HA80x |
|---|---|---|---|---|---|---|---|---|
"""
Array = npt.NDArray[np.float32]
Inputs = Mapping[str, torch.Tensor]
"""Matrix name → what it was multiplied with, float32 ``[tokens, columns]``."""
Stored = dict[str, torch.Tensor]
Codes = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def calibration_inputs(folder: Path, texts: list[str]) -> dict[str, torch.Tensor]:
    """Run the texts through the model and keep what enters every linear layer of its blocks."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kept: dict[str, list[torch.Tensor]] = defaultdict(list)

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, inputs, _output: kept[name].append(inputs[0].detach().flatten(0, -2))

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "layer." in name:
            module.register_forward_hook(keep(f"{name}.weight"))
    with torch.no_grad():
        for text in texts:
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=64))
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _range(values: torch.Tensor, *, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of every row's 16 levels."""
    low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / 15).clamp(min=1e-8).half().float()
    zero = torch.full_like(scale, 8.0) if symmetric else torch.round(-low / scale).clamp(1, 15)
    return scale, zero


def _codes(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return (torch.round(values / scale) + zero).clamp(0, 15)


def gptq(
    weight: torch.Tensor, inputs: torch.Tensor, group: int, *, sort: bool, feedback: bool, symmetric: bool
) -> Codes:
    """Codes ``[rows, columns]``, scales and zeros ``[rows, groups]``, and the group of every column."""
    rows, columns = weight.shape
    hessian = 2 * (inputs.T @ inputs).double()
    order = torch.argsort(hessian.diag(), descending=True) if sort else torch.arange(columns)
    left = weight.double()[:, order].clone()
    hessian = hessian[order][:, order]
    hessian += 0.01 * hessian.diag().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    codes, scales, zeros = torch.zeros(rows, columns), [], []
    scale = zero = torch.zeros(rows)
    for column in range(columns):
        if column % group == 0:
            scale, zero = _range(left[:, column : column + group].float(), symmetric=symmetric)
            scales.append(scale)
            zeros.append(zero)
        made = _codes(left[:, column].float(), scale, zero)
        codes[:, column] = made
        if feedback:
            error = (left[:, column] - ((made - zero) * scale).double()) / inverse[column, column]
            left[:, column:] -= torch.outer(error, inverse[column, column:])
    back = torch.argsort(order)
    index = (torch.arange(columns) // group)[back]
    return codes[:, back], torch.stack(scales, 1), torch.stack(zeros, 1), index


def awq_scales(weights: list[torch.Tensor], inputs: torch.Tensor, group: int) -> torch.Tensor:
    """The factors of the columns that leave the least error of the outputs of all layers with these inputs."""
    size = inputs.abs().mean(0).clamp(min=1e-4)
    best, least = torch.ones_like(size), float("inf")
    for step in range(20):
        factors = size.pow(step / 20)
        factors = factors / (factors.max() * factors.min()).sqrt()
        lost = 0.0
        for weight in weights:
            made = _rounded(weight * factors, group, 1.0) / factors
            lost += float((inputs @ (made - weight).T).square().mean())
        if lost < least:
            best, least = factors, lost
    return best


def _rounded(weight: torch.Tensor, group: int, share: float) -> torch.Tensor:
    codes, scales, zeros = _grouped(weight, group, torch.full((weight.shape[0], weight.shape[1] // group), share))
    made: torch.Tensor = ((codes - zeros[..., None]) * scales[..., None]).flatten(1)
    return made


def _grouped(weight: torch.Tensor, group: int, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and zeros by group, each group's range cut to a share of it."""
    parts = weight.reshape(weight.shape[0], -1, group)
    low = parts.amin(2).clamp(max=0) * shares
    high = parts.amax(2).clamp(min=0) * shares
    scales = ((high - low) / 15).clamp(min=1e-8).half().float()
    zeros = torch.round(-low / scales).clamp(0, 15)
    return _codes(parts, scales[..., None], zeros[..., None]), scales, zeros


def awq_clip(weight: torch.Tensor, inputs: torch.Tensor, group: int) -> torch.Tensor:
    """The share of each group's range that leaves the least error of its part of the outputs."""
    rows = weight.shape[0]
    parts = inputs[:: max(1, len(inputs) // 256)].reshape(-1, weight.shape[1] // group, group)
    best = torch.ones(rows, weight.shape[1] // group)
    least = torch.full_like(best, float("inf"))
    for step in range(10):
        shares = torch.full_like(best, 1 - step / 20)
        codes, scales, zeros = _grouped(weight, group, shares)
        error = (codes - zeros[..., None]) * scales[..., None] - weight.reshape(codes.shape)
        lost = torch.einsum("tgi,rgi->rgt", parts, error).square().mean(2)
        better = lost < least
        best, least = torch.where(better, shares, best), torch.where(better, lost, least)
    return best


def _words(values: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Pack each eight numbers of a row into a 32-bit word, nibble k holding number ``order[k]``."""
    eights = values.long().reshape(values.shape[0], -1, 8)
    shifts = torch.arange(0, 32, 4)
    packed = (eights[:, :, list(order)] << shifts).sum(2)
    return torch.from_numpy(packed.numpy().astype(np.uint32).view(np.int32))


def copy_by_gptq(tensors: Stored, inputs: Inputs, *, group: int, **how: bool) -> Stored:
    """The tensors with every linear layer in AutoGPTQ's layout."""
    made = dict(tensors)
    for name, entered in inputs.items():
        codes, scales, zeros, index = gptq(made.pop(name).float(), entered, group, **how)
        stem = name.removesuffix("weight")
        made[stem + "qweight"] = _words(codes, tuple(range(8))).T.contiguous()
        made[stem + "qzeros"] = _words(zeros.T - 1, tuple(range(8)))
        made[stem + "scales"] = scales.T.half().contiguous()
        made[stem + "g_idx"] = index.int()
    return made


def copy_by_awq(tensors: Stored, inputs: Inputs, *, group: int) -> Stored:
    """The tensors with every linear layer in AutoAWQ's layout, columns scaled and groups cut."""
    made = dict(tensors)
    by_input: dict[str, list[str]] = defaultdict(list)
    for name in inputs:
        module = name.partition("attention.self.")
        by_input[module[0] + module[1] if module[1] else name].append(name)
    for names in by_input.values():
        entered = inputs[names[0]]
        factors = awq_scales([tensors[name].float() for name in names], entered, group)
        for name in names:
            weight = made.pop(name).float() * factors
            shares = torch.ones(weight.shape[0], weight.shape[1] // group)
            if not name.endswith(("query.weight", "key.weight")):
                shares = awq_clip(weight, entered / factors, group)
            codes, scales, zeros = _grouped(weight, group, shares)
            stem = name.removesuffix("weight")
            made[stem + "qweight"] = _words(codes.flatten(1).T, _AWQ_ORDER)
            made[stem + "qzeros"] = _words(zeros.T, _AWQ_ORDER)
            made[stem + "scales"] = scales.T.half().contiguous()
    return made


WAYS: Final[Mapping[str, Callable[[Stored, Inputs], Stored]]] = {
    "nearest, 128": lambda t, i: copy_by_gptq(t, i, group=128, sort=False, feedback=False, symmetric=True),
    "GPTQ, 128": lambda t, i: copy_by_gptq(t, i, group=128, sort=False, feedback=True, symmetric=True),
    "GPTQ, 128, sorted": lambda t, i: copy_by_gptq(t, i, group=128, sort=True, feedback=True, symmetric=True),
    "GPTQ, 128, asymmetric": lambda t, i: copy_by_gptq(t, i, group=128, sort=False, feedback=True, symmetric=False),
    "GPTQ, 32, sorted": lambda t, i: copy_by_gptq(t, i, group=32, sort=True, feedback=True, symmetric=True),
    "AWQ, 128": lambda t, i: copy_by_awq(t, i, group=128),
    "AWQ, 32": lambda t, i: copy_by_awq(t, i, group=32),
}


def measured(facts: DriftFacts) -> Iterator[dict[str, float | str]]:
    """The statistics that the rules look at, one record for each tensor in codes."""
    for tensor in facts.tensors:
        coding = tensor.coding
        if coding is None or coding.error_ratio is None:
            continue
        with np.errstate(divide="ignore"):
            logs = np.log(coding.row_error_sq / coding.row_expected_sq)
        yield {
            "tensor": tensor.spec.name,
            "ratio": coding.error_ratio,
            "row_excess": float(logs.max() - np.median(logs)),
            "peak": float(coding.row_peak.max()),
        }


def run(folder: Path, way: str, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Make one copy, compare it with its original, and scan it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    tensors = load_file(folder / "model.safetensors")
    prefix = next((n.removesuffix("embeddings.word_embeddings.weight") for n in tensors if "word_embeddings" in n), "")
    made = WAYS[way](tensors, {prefix + name: entered for name, entered in inputs.items()})
    save_file({name: value.contiguous() for name, value in made.items()}, out / "model.safetensors")
    tensor_records = list(measured(measure_folders(folder, out)))
    report = audit_repo(str(out), base=str(folder), hub=Hub(), threads=1, salt=1).report
    shutil.rmtree(out)
    return {
        "model": folder.name,
        "way": way,
        "tensors": tensor_records,
        "findings": sorted(f.rule_id for f in report.findings if f.rule_id.startswith("HA80")),
        "status": report.lineage.status,
        "relation": report.lineage.relation,
        "verdict": report.verdict.outcome,
    }


def summarise(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each way of quantising."""
    by_way: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_way[record["way"]].append(record)
    rows = []
    for way in (way for way in WAYS if way in by_way):
        found = by_way[way]
        tensors = [tensor for record in found for tensor in record["tensors"]]
        ratios = np.array([tensor["ratio"] for tensor in tensors])
        excess = []
        for record in found:
            own = np.array([tensor["ratio"] for tensor in record["tensors"]])
            excess += [float(np.log(own[i] / np.median(np.delete(own, i)))) for i in range(len(own))]
        rows.append(
            {
                "way": way,
                "models": len(found),
                "tensors": len(tensors),
                "ratio": [round(float(v), 3) for v in np.quantile(ratios, [0, 0.5, 0.99, 1])],
                "tensor_excess": round(max(excess), 3),
                "row_excess": round(max(tensor["row_excess"] for tensor in tensors), 3),
                "row_excess_p99": round(float(np.quantile([t["row_excess"] for t in tensors], 0.99)), 3),
                "false_alarms": sum(bool(record["findings"]) for record in found),
                "not_passed": sum(record["verdict"] != "pass" for record in found),
                "called_quantized": sum(record["relation"] == "quantized" for record in found),
                "rules": sorted({rule for record in found for rule in record["findings"]}),
            }
        )
    return rows


def page(rows: list[dict[str, Any]]) -> str:
    """The section of docs/benchmarks.md."""
    lines = [_BEGIN, *_HEAD.splitlines()]
    lines += [
        f"| {r['way']} | {r['models']} | {r['tensors']} | {', '.join(map(str, r['ratio']))} | {r['tensor_excess']} | "
        f"{r['row_excess']} ({r['row_excess_p99']}) | {r['called_quantized']} | {r['not_passed']} | "
        f"{r['false_alarms']}{' (' + ', '.join(r['rules']) + ')' if r['rules'] else ''} |"
        for r in rows
    ]
    return "\n".join([*lines, _END]) + "\n"


def write_page(text: str) -> None:
    """Replace the section, or add it at the end."""
    content = PAGE.read_text(encoding="utf-8")
    if _BEGIN in content:
        before, _, rest = content.partition(_BEGIN)
        content = before + text + rest.partition(_END)[2].removeprefix("\n")
    else:
        content = content.rstrip("\n") + "\n\n" + text
    PAGE.write_text(content, encoding="utf-8")


def main() -> None:
    """Make, measure, summarise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=3, help="fine-tunes beside the base")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if not TEXTS.exists():
        raise SystemExit(f"The calibration text {TEXTS} is not there; the measurement needs it.")
    with gzip.open(TEXTS, "rt", encoding="utf-8") as lines:
        texts = [max(row, key=len) for row in csv.reader(lines)][1 : SENTENCES + 1]
    WORK.mkdir(parents=True, exist_ok=True)
    record = WORK / "records.jsonl"
    known = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(entry["model"], entry["way"]) for entry in known}
    folders = [get_tier("real").base, *sorted(ZOO.glob("clean-*"))[: arguments.models]]
    for folder in folders:
        missing = [way for way in WAYS if (folder.name, way) not in done]
        inputs = calibration_inputs(folder, texts) if missing else {}
        for way in missing:
            known.append(run(folder, way, inputs, WORK / "copy"))
            with record.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
    rows = summarise(known)
    RESULTS.write_text(json.dumps({"seed": SEED, "sentences": SENTENCES, "rows": rows}, indent=1) + "\n")
    write_page(page(rows))


if __name__ == "__main__":
    main()
