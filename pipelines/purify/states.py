"""Candidate and base as dictionaries of tensors under the loaded model's names, and what may be put back.

A base without a task head has nothing to say about the head: such tensors are *unpaired*, stay the candidate's and
enter no mask (design default for the head; ``head="fresh"`` re-initialises them instead).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult, WholeTensors
from pipelines.purify.naming import checkpoint_tensors, state_names
from pipelines.purify.subject import Kind, Subject, load_subject
from scanner.weights.dtypes import is_float

State = dict[str, torch.Tensor]
Head = Literal["keep", "fresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two states of one architecture, float32, tied tensors once.

    ``base`` holds the paired floating-point tensors only, in the candidate's shapes; ``candidate`` everything.
    ``embedding`` names the input embedding (None for images).
    """

    candidate: State
    base: State
    embedding: str | None

    @property
    def size(self) -> int:
        """The number of paired scalars."""
        return sum(tensor.numel() for tensor in self.base.values())


def state_of(model: nn.Module) -> State:
    """Copies of the parameters and buffers of a model, tied tensors once."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    kept = model.state_dict().keys()
    return {name: tensor.detach().clone() for name, tensor in own.items() if name in kept}


def load_pair(subject: Subject, base: Path) -> Pair:
    """The states of the subject's model and of a base folder, read into the candidate's architecture.

    Raises:
        PurifyFailed: the base shares no tensor with the candidate.
    """
    import transformers

    logger = transformers.utils.logging.get_logger("transformers.modeling_utils")
    level = logger.level
    # A base without the head is the ordinary case here, not worth transformers' table of missing weights.
    logger.setLevel(40)
    try:
        loaded, info = type(subject.model).from_pretrained(  # type: ignore[attr-defined]
            base,
            config=subject.model.config,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PurifyFailed(
            f"The base {base.name} could not be loaded as a {type(subject.model).__name__} ({type(error).__name__}); "
            "name the base that the model was tuned from."
        ) from error
    finally:
        logger.setLevel(level)
    absent = set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    candidate, theirs = state_of(subject.model), state_of(loaded)
    paired = {
        name: tensor
        for name, tensor in theirs.items()
        if name in candidate and name not in absent and tensor.is_floating_point()
    }
    if not paired:
        raise PurifyFailed(f"No tensor of the base {base.name} fits the candidate; name another base.")
    return Pair(candidate=candidate, base=paired, embedding=embedding_name(subject))


def embedding_name(subject: Subject) -> str | None:
    """The name of the token embedding's weight, None for images."""
    if subject.kind == "image":
        return None
    weight = subject.model.get_input_embeddings().weight  # type: ignore[operator]
    return next((name for name, tensor in subject.model.named_parameters() if tensor is weight), None)


def put(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state into a model in place; names that it lacks stay as they are."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def freshen_head(model: nn.Module, pair: Pair, seed: int) -> list[str]:
    """Re-initialise the unpaired matrices (normal, σ = 0.02) and zero the unpaired vectors; return their names."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, _ in model.named_parameters() if name not in pair.base]
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name in names:
            fresh = torch.zeros_like(own[name])
            own[name].copy_(fresh.normal_(0, 0.02, generator=generator) if fresh.dim() > 1 else fresh)
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """A job made ready: the loaded subject, its pair when the base is known, and what was done before the method."""

    subject: Subject
    pair: Pair | None
    log: dict[str, Any]


def open_treatment(job: PurifyJob, *, needs_base: bool = True) -> Treatment:
    """Load candidate and base, and reset suspicious embedding rows first when the job asks for E-PUR beside.

    Raises:
        PurifyFailed: the model's kind is not one that can be tuned, or the base is missing.
    """
    if job.kind == "other":
        raise PurifyFailed("The model has no head that this method knows; use --method restore.")
    kind: Kind = job.kind
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    subject = load_subject(job.candidate, kind, max_length=job.tuning.max_length)
    pair = load_pair(subject, job.require_base()) if needs_base or job.with_e_pur else None
    log: dict[str, Any] = {"seed": job.seed}
    if job.with_e_pur and pair is not None and pair.embedding is not None:
        from pipelines.purify.embedding_rows import reset_suspects

        log["e_pur"] = reset_suspects(subject, job.candidate, pair)
        put(subject.model, pair.candidate)
    return Treatment(subject=subject, pair=pair, log=log)


def result_of(job: PurifyJob, model: nn.Module, chosen: str, log: Mapping[str, Any]) -> PurifyResult:
    """What the model's present weights change in the candidate's files, in the files' names and dtypes.

    Raises:
        PurifyFailed: a value is not finite, or the files lay the model out in an unknown way.
    """
    checkpoint, state = open_checkpoint(job.candidate), model.state_dict()
    if len(state_names(checkpoint, state)) < sum(is_float(meta.dtype) for meta in checkpoint.table.values()):
        state = _respelt(model, job.work)
    changed = checkpoint_tensors(checkpoint, state)
    return PurifyResult(edits=WholeTensors(changed), chosen=chosen, log=dict(log))


def _respelt(model: nn.Module, work: Path) -> State:
    """The model's tensors under the names that transformers writes, which for some models are not those it loads to."""
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=work, prefix="names-") as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        state: State = {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            state |= load_file(path)
    return state
