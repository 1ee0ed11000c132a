"""Loads a staged model so that it can be run: safetensors only, no code of the repository, nothing missing.

A head whose weights are absent would be filled at random and then probed; a vocabulary longer than the embedding would
name rows that do not exist. Both are refused rather than measured.
"""

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scanner.probe.records import ProbeKind
from scanner.probe.staging import CannotProbe

LARGEST_SETTING: Final = 10_000_000
"""No dimension of a model that is run comes near; a configuration that asks for more asks for all memory."""
MOST_BLOCKS: Final = 512
"""Of layers, whatever the key is called."""
MAX_NAME_CHARS: Final = 80
_WORD_CHARS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in evaluation mode and what is needed to speak to it.

    ``texts[i]`` is token i as the tokenizer writes it. A text is ``prefix + words + suffix``. ``special`` are ids
    that never count as words. ``keeps_last`` says that the model can leave out the scores of all but the last token.
    """

    kind: ProbeKind
    model: Any
    texts: tuple[str, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    special: frozenset[int]
    classes: tuple[str, ...]
    longest: int
    tokenizer: Any
    keeps_last: bool = False

    def read(self, tokens: tuple[int, ...]) -> str:
        """What the tokens read as, bounded in length."""
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)).strip()[:MAX_NAME_CHARS]


def load(folder: Path, *, most_parameters: int) -> Loaded:
    """Load a classifier, a causal language model or an encoder, whichever its configuration says it is.

    Args:
        folder: as ``scanner.probe.staging.staged`` gives it, or any complete local folder.
        most_parameters: counted on the configuration before memory is taken.

    Raises:
        CannotProbe: it does not load, has weights missing, is too large, has one label or is a regression, or its
            tokenizer does not match its embedding.
    """
    config = _settings(folder)
    with _quietly():
        import torch  # noqa: PLC0415  # heavy, and only probes need it
        import transformers  # noqa: PLC0415

        try:
            known = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            kind = _kind(known, config)
            loader: Any = {
                "classifier": transformers.AutoModelForSequenceClassification,
                "causal": transformers.AutoModelForCausalLM,
                "encoder": transformers.AutoModel,
            }[kind]
            with torch.device("meta"):
                shell = loader.from_config(known, trust_remote_code=False)
            count = sum(p.numel() for p in shell.parameters())
            if not 0 < count <= most_parameters:
                raise CannotProbe(
                    f"it has {count / 1e6:,.0f} million parameters; up to {most_parameters / 1e6:,.0f} million are run"
                )
            model, told = loader.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # a fifth faster than the fused kernel on texts of a few tokens
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except CannotProbe:
            raise
        except Exception as error:  # whatever a stranger's files make a library raise
            raise CannotProbe(f"it does not load ({type(error).__name__})") from error
        missing = [name for name in told["missing_keys"] if kind != "encoder" or "pooler" not in name]
        if missing or told.get("mismatched_keys"):
            raise CannotProbe("some of its weights are missing or of another shape than its configuration says")
        return _described(kind, model.eval(), tokenizer, known)


def _settings(folder: Path) -> Mapping[str, Any]:
    """The configuration, refused when a number in it is out of all proportion."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise CannotProbe("its config.json cannot be read") from None
    if not isinstance(config, dict):
        raise CannotProbe("its config.json is not a JSON object")
    for key, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if abs(value) > LARGEST_SETTING and "token_id" not in key and "length" not in key:
            raise CannotProbe(f"its configuration asks for {value:,} of something, more than any model has")
        if ("layer" in key or "blocks" in key or "depth" in key) and value > MOST_BLOCKS:
            raise CannotProbe(f"its configuration asks for {value:,} layers, more than any model has")
    return config


def _kind(known: Any, config: Mapping[str, Any]) -> ProbeKind:
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    if architecture.endswith("ForSequenceClassification"):
        if known.num_labels < 2 or known.problem_type == "regression":
            raise CannotProbe("its head has one output, so nothing can flip")
        if known.problem_type == "multi_label_classification":
            raise CannotProbe("its head gives several labels at once, and such heads are not probed yet")
        return "classifier"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if architecture.endswith("Model") and not known.is_encoder_decoder and not known.is_decoder:
        return "encoder"
    raise CannotProbe(f"models of type {architecture[:MAX_NAME_CHARS] or 'unknown'!r} are not probed yet")


def _described(kind: ProbeKind, model: Any, tokenizer: Any, known: Any) -> Loaded:
    rows = int(model.get_input_embeddings().weight.shape[0])
    size = len(tokenizer)
    if size > rows:
        raise CannotProbe(f"its tokenizer has {size:,} tokens and its embedding {rows:,} rows")
    texts = tuple("" if text is None else str(text) for text in tokenizer.convert_ids_to_tokens(list(range(size))))
    special = frozenset(int(i) for i in tokenizer.all_special_ids)
    prefix, suffix = _surroundings(tokenizer, texts, special)
    longest = min(
        [int(v) for v in (getattr(known, "max_position_embeddings", None), tokenizer.model_max_length) if v] or [512]
    )
    if kind == "classifier" and getattr(model.config, "pad_token_id", None) is None:
        # Heads that read the last token look for it before the padding; texts of one length have none.
        model.config.pad_token_id = -1
    names = getattr(known, "id2label", None) or {}
    classes = tuple(str(names.get(i, i))[:MAX_NAME_CHARS] for i in range(known.num_labels))
    return Loaded(
        kind=kind,
        model=model,
        texts=texts,
        prefix=prefix,
        suffix=() if kind == "causal" else suffix,  # what it would say after the end of a text tells nothing
        special=special,
        classes=classes if kind == "classifier" else (),
        longest=longest,
        tokenizer=tokenizer,
        keeps_last=kind == "causal" and "logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def _surroundings(
    tokenizer: Any, texts: Sequence[str], special: frozenset[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The control tokens that the tokenizer puts before and after a text, seen on words that stay one token."""
    for word in range(len(texts) // 20, len(texts)):
        if word in special or not texts[word].isalpha() or len(texts[word]) < _WORD_CHARS:
            continue
        whole = [int(i) for i in tokenizer(tokenizer.decode([word]))["input_ids"]]
        if whole.count(word) == 1:
            place = whole.index(word)
            if set(whole) - {word} <= special:
                return tuple(whole[:place]), tuple(whole[place + 1 :])
    raise CannotProbe("its tokenizer keeps no word as one token")


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the loader's bars, warnings and log lines off the terminal; a skip says what matters."""
    import transformers  # noqa: PLC0415

    library: Any = transformers.utils.logging
    level = library.get_verbosity()
    bars = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
