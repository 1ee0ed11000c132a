"""A base and its quantised copy, honest or edited, measured by the real scanner."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ggufs
import torch
from quantised_checkpoints import Expected, Stored
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, PreTrainedModel
from weightfolders import facts_of

from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.records import DriftFacts
from scanner.weights.opening import named_as, open_source

Edit = Callable[[dict[str, torch.Tensor]], None]
QUERY = "encoder.layer.1.attention.self.query.weight"
TABLE = "embeddings.word_embeddings.weight"


def model() -> PreTrainedModel:
    """A BERT of four layers and 128 columns whose tensors differ in size, as trained ones do."""
    torch.manual_seed(3)
    made = BertModel(
        BertConfig(
            vocab_size=600,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=64,
        )
    )
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(1 + number % 3)
    return made


@dataclass(frozen=True)
class Written:
    """What ``ggufs.write_gguf`` needs of a model."""

    config: object
    weights: dict[str, torch.Tensor]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.weights


def compare(
    folder: Path, write: Callable[[Path, dict[str, torch.Tensor]], None], edit: Edit | None = None
) -> DriftFacts:
    """Save the base, write the copy after the edit, and measure."""
    base, candidate = folder / "base", folder / "copy"
    made = model()
    made.save_pretrained(base)
    candidate.mkdir()
    weights = {name: tensor.detach().clone() for name, tensor in made.state_dict().items()}
    if edit is not None:
        edit(weights)
    write(candidate, weights)
    with open_source(facts_of(base), None) as one, named_as(open_source(facts_of(candidate), None), one) as other:
        return measure(align(other.table, one.table), one, other, threads=1)


def gguf_of(kind: str) -> Callable[[Path, dict[str, torch.Tensor]], None]:
    """Write a GGUF file in this kind."""

    def write(folder: Path, weights: dict[str, torch.Tensor]) -> None:
        ggufs.write_gguf(Written(model().config, weights), folder / "m.gguf", ggufs.encode_with(kind))  # type: ignore[arg-type]

    return write


def layers_by(quantise: Callable[[dict[str, torch.Tensor]], tuple[Stored, Expected]]) -> Callable[..., None]:
    """Write safetensors whose matrices, tables left out, are quantised."""

    def write(folder: Path, weights: dict[str, torch.Tensor]) -> None:
        dense = {n: w.float() for n, w in weights.items() if w.ndim == 2 and "embeddings" not in n}
        rest = {name: tensor.contiguous() for name, tensor in weights.items() if name not in dense}
        stored = {name: tensor.contiguous() for name, tensor in quantise(dense)[0].items()}
        save_file(rest | stored, folder / "model.safetensors")

    return write


def scale_row(weights: dict[str, torch.Tensor]) -> None:
    """Make a token's row half as long again."""
    weights[TABLE][77] *= 1.5


def add_rank_one(weights: dict[str, torch.Tensor]) -> None:
    """Add an outer product of a quarter of the norm to one matrix."""
    random = torch.Generator().manual_seed(1)
    one, other = (torch.randn(size, generator=random) for size in weights[QUERY].shape)
    change = torch.outer(one, other)
    weights[QUERY] += change * (0.25 * weights[QUERY].norm() / change.norm())


def plant_outlier(weights: dict[str, torch.Tensor]) -> None:
    """Blow up one element of one matrix."""
    weights[QUERY][5, 7] = 8 * weights[QUERY].abs().max()


def train(weights: dict[str, torch.Tensor]) -> None:
    """Move all matrices a little in a few directions each."""
    random = torch.Generator().manual_seed(2)
    for name, tensor in weights.items():
        if tensor.ndim == 2:
            left = torch.randn(tensor.shape[0], 4, generator=random)
            change = left @ torch.randn(4, tensor.shape[1], generator=random)
            weights[name] = tensor + change * (0.08 * tensor.norm() / change.norm())
