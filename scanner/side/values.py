"""Configuration values around the weights: generation, special tokens, pre-processing, as differences per key.

Values are compared as JSON and kept as bounded text; what a value means is for the audit to say.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from scanner.records import RepoFacts, Skip
from scanner.side.reading import TextReader, inherited, read_object
from scanner.side.records import ValueChange

GENERATION: Final = "generation_config.json"
CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
SPECIAL_TOKENS: Final = "special_tokens_map.json"
OTHER_FILES: Final = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
GENERATION_KEYS: Final = frozenset(
    {
        "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens",
        "bad_words_ids", "force_words_ids", "sequence_bias", "eos_token_id", "bos_token_id", "pad_token_id",
        "decoder_start_token_id", "stop_strings", "max_new_tokens", "max_length", "exponential_decay_length_penalty",
    }
)  # fmt: skip
"""Keys that act on generation from config.json as well (transformers reads them from there when there is no
generation_config.json)."""
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_TOKENIZER_KEYS: Final = frozenset(
    {
        *_SPECIAL, "additional_special_tokens", "extra_special_tokens", "add_bos_token", "add_eos_token",
        "add_prefix_space", "do_lower_case", "model_max_length", "padding_side", "truncation_side", "tokenizer_class",
    }
)  # fmt: skip
_IGNORED: Final = frozenset({"transformers_version", "_from_model_config", "chat_template", "auto_map"})
MAX_LISTED: Final = 60
MAX_SHOWN: Final = 200
MAX_IDS: Final = 200


def compare_values(
    candidate: RepoFacts, base: RepoFacts | None, reader: TextReader, skips: list[Skip]
) -> tuple[ValueChange, ...]:
    """Hold the configuration files around the weights against the base's.

    A file that the base has too, by its hash, is not read; a key that neither side gives is no difference. Without a
    base, what acts on generation and which tokens are special is listed all the same, as new.
    """
    found = [*_generation(candidate, base)]
    if candidate.file(TOKENIZER_CONFIG) and not inherited(TOKENIZER_CONFIG, candidate, base):
        found += _of_file(TOKENIZER_CONFIG, candidate, base, reader, skips, keys=_TOKENIZER_KEYS)
    if candidate.file(SPECIAL_TOKENS) and not inherited(SPECIAL_TOKENS, candidate, base):
        found += _of_file(SPECIAL_TOKENS, candidate, base, reader, skips, other=TOKENIZER_CONFIG)
    for path in OTHER_FILES:
        if base is not None and base.file(path) and candidate.file(path) and not inherited(path, candidate, base):
            found += _of_file(path, candidate, base, reader, skips)
    return tuple(found[:MAX_LISTED])


def _generation(candidate: RepoFacts, base: RepoFacts | None) -> Iterator[ValueChange]:
    """What acts on generation; each side's own file wins over its config, as it does where the model is loaded.

    Adapters and GGUF files come without either: they are loaded with the base's, or with what stands in the file.
    """
    if candidate.generation_config is None and candidate.config is None:
        return
    own, theirs = _acting(candidate), _acting(base)
    file = GENERATION if candidate.generation_config is not None else CONFIG
    for key in sorted(own.keys() | theirs.keys()):
        mine, other = own.get(key), theirs.get(key)
        if key not in _IGNORED and mine != other:
            yield _change(file, key, other, mine)


def _acting(facts: RepoFacts | None) -> Mapping[str, Any]:
    if facts is None:
        return {}
    config = facts.config or {}
    inherited_keys = {key: config[key] for key in GENERATION_KEYS & config.keys()}
    if facts.generation_config is not None:
        # Token ids of config.json still decide where the other file is silent.
        return {**{k: v for k, v in inherited_keys.items() if k.endswith("_token_id")}, **facts.generation_config}
    return inherited_keys


def _of_file(
    path: str,
    candidate: RepoFacts,
    base: RepoFacts | None,
    reader: TextReader,
    skips: list[Skip],
    *,
    keys: frozenset[str] | None = None,
    other: str | None = None,
) -> Iterator[ValueChange]:
    """Differences in one file; ``other`` is where the base may say the same when it lacks the file."""
    own = read_object(candidate, path, reader, skips)
    if own is None:
        return
    place = path if base is None or base.file(path) or other is None else other
    theirs = read_object(base, place, reader, skips)
    if base is not None and theirs is None and base.file(place) is not None:
        return
    for key in sorted(keys if keys is not None else own.keys()):
        mine, known = _token_text(own.get(key)), _token_text((theirs or {}).get(key))
        if key not in _IGNORED and mine is not None and mine != known:
            yield _change(path, key, known, mine)


def _token_text(value: Any) -> Any:
    """Special tokens are written as texts or as objects that hold one."""
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        return value["content"]
    if isinstance(value, list):
        return [_token_text(item) for item in value]
    return value


def _change(file: str, key: str, base: Any, candidate: Any) -> ValueChange:
    ids = set(_numbers(candidate)) - set(_numbers(base))
    words = set(_words(candidate)) - set(_words(base))
    return ValueChange(
        file=file,
        key=key[:MAX_SHOWN],
        base=_shown(base),
        candidate=_shown(candidate),
        ids=tuple(sorted(ids)[:MAX_IDS]),
        words=tuple(sorted(words)[:MAX_IDS]),
    )


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=True, sort_keys=True)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers in a value, to any depth; lists of lists hold token ids."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, int) and not isinstance(item, bool):
            yield item
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, Mapping):
            waiting += item.values()


def _words(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item[:MAX_SHOWN]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, Mapping):
            waiting += item.values()
