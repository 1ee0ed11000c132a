"""Asks transformers what it would call the tensors of a checkpoint.

Released checkpoints keep the names of their time; transformers renames them while loading. Its own tables say how,
given the architecture on the meta device: no weights, no network, no code from the repository. Those tables are
semi-private, and a configuration comes from a stranger, so all of it runs in a child process with a time limit:
what goes wrong there is a sentence here. The main process never loads torch for it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

TIMEOUT_SECONDS = 120.0
"""Time for one child process; loading the library takes about five seconds of it."""
MAX_NAMES = 200_000
MAX_COUNT = 1024
"""Largest layer, block or expert count that is built; the deepest released networks have fewer than 256 layers."""
MAX_NUMBER = 1 << 26
"""Largest number of any other kind (vocabularies, contexts, widths)."""
MAX_DEPTH = 12
_NO_TYPE = "the configuration names no model type"
_COUNT_KEY = re.compile(r"layer|block|expert|depth|stage|branch|level|hop|types")
_FORBIDDEN_KEY = re.compile(r"^_|implementation|quantization|auto_map|kernels|backbone|transformers_version|dtype$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """What transformers makes of the names of one checkpoint.

    ``names`` maps a name on disk to the model's own, without the base-model prefix. ``fused`` holds the names on disk
    whose tensors are merged or split on loading: their values cannot be compared one to one. ``problem`` says in
    one clause why nothing could be said.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    fused: frozenset[str] = frozenset()
    problem: str | None = None


def canonical_names(
    checkpoints: Sequence[tuple[Iterable[str], Mapping[str, Any] | None]],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[Canonical, ...]:
    """Return the model's names for each (names on disk, configuration), in the order given. Never raises."""
    asked: list[dict[str, Any]] = [{"names": sorted(names), "config": config} for names, config in checkpoints]
    if not any(isinstance((entry["config"] or {}).get("model_type"), str) for entry in asked):
        return tuple(Canonical(problem=_NO_TYPE) for _ in asked)
    try:
        answers = _ask_child(asked, timeout_seconds)
    except subprocess.TimeoutExpired:
        problem = f"transformers did not build the architecture within {timeout_seconds:g} seconds"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        problem = f"transformers could not be asked for tensor names ({type(error).__name__})"
    else:
        return tuple(answers)
    return tuple(Canonical(problem=problem) for _ in asked)


def _ask_child(asked: list[dict[str, Any]], timeout_seconds: float) -> list[Canonical]:
    """Run the child on the questions.

    Raises:
        OSError: it cannot be started.
        ValueError: it answers something else than JSON.
        subprocess.SubprocessError: it fails or takes too long.
    """
    finished = subprocess.run(  # our own interpreter and module; repository text goes by stdin
        [sys.executable, "-P", "-W", "ignore", "-m", "scanner.conversions"],
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
        timeout=timeout_seconds,
        env=_child_environment(),
    )
    answers = json.loads(finished.stdout.rpartition(b"\n")[2])
    return [Canonical(**{**answer, "fused": frozenset(answer["fused"])}) for answer in answers]


def _child_environment() -> dict[str, str]:
    """The environment without tokens and endpoints, offline."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    packages = os.pathsep.join(path for path in sys.path if path)
    return kept | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": packages}


def canonicalise(names: Sequence[str], config: Mapping[str, Any] | None) -> Canonical:
    """Answer for one checkpoint in this process (loads torch and transformers). Never raises."""
    try:
        clean = clean_config(config)
        return _canonicalise(names, clean)
    except _Refused as refused:
        return Canonical(problem=str(refused))
    except Exception as error:  # noqa: BLE001  # a semi-private library on a stranger's configuration raises anything
        return Canonical(problem=f"transformers could not build the architecture ({type(error).__name__})")


class _Refused(ValueError):  # noqa: N818
    """The configuration is not one that we are ready to build; the message says why."""


def clean_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy a configuration without what could load code or reach the network, and with bounded counts.

    Raises:
        ValueError: there is none, it names no model type, or it asks for an absurd size.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("model_type"), str):
        raise _Refused(_NO_TYPE)
    clean: dict[str, Any] = _clean(config, "", 0)
    return clean


def _clean(value: Any, key: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise _Refused("the configuration is nested too deeply")
    if isinstance(value, Mapping):
        return {
            name: _clean(item, name, depth + 1)
            for name, item in value.items()
            if isinstance(name, str) and not _FORBIDDEN_KEY.search(name)
        }
    if isinstance(value, list):
        if len(value) > MAX_COUNT * 8:
            raise _Refused(f"the configuration holds a list of {len(value):,} entries")
        return [_clean(item, key, depth + 1) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        limit = MAX_COUNT if isinstance(value, int) and _COUNT_KEY.search(key) else MAX_NUMBER
        if isinstance(value, int) and abs(value) > limit:
            raise _Refused(f"the configuration asks for {key[:40]} = {str(value)[:20]}, which is too large to build")
    return value


def _canonicalise(names: Sequence[str], config: dict[str, Any]) -> Canonical:
    import torch  # noqa: PLC0415  # costs seconds and 300 MB, and only the child process pays
    from transformers import AutoModel  # noqa: PLC0415
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, rename_source_key  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise _Refused(f"transformers does not know the model type {kind[:40]!r}")
    auto: Any = AutoModel
    with torch.device("meta"):
        model = auto.from_config(
            CONFIG_MAPPING[kind].from_dict(config), trust_remote_code=False, attn_implementation="eager"
        )
    transforms = get_model_conversion_mapping(model)
    converters = [step for step in transforms if isinstance(step, WeightConverter)]
    renamings: Any = [step for step in transforms if not isinstance(step, WeightConverter)]
    state = model.state_dict()
    found, fused = {}, set()
    for name in names[:MAX_NAMES]:
        new, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        found[name] = new
        if converter is not None:
            fused.add(name)
    return Canonical(names=found, fused=frozenset(fused))


def _main() -> None:
    """Answer the questions on stdin as one line of JSON on stdout."""
    asked = json.load(sys.stdin)
    answers = [asdict(canonicalise(entry["names"], entry["config"])) for entry in asked]
    for answer in answers:
        answer["fused"] = sorted(answer["fused"])
    sys.stdout.write("\n" + json.dumps(answers))


if __name__ == "__main__":
    _main()
