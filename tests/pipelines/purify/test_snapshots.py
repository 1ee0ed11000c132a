"""A complete local copy: what a loader needs, each file once, also after an interruption."""

from pathlib import Path

import pico
import pytest
from localhub.server import LocalHub

from pipelines.progress import Quiet
from pipelines.purify.rewriting import file_digest
from pipelines.purify.snapshots import snapshot
from scanner.errors import NothingToCompare
from scanner.hub import Hub
from scanner.refs import parse_spec


class Stopping:
    """Presses Ctrl-C after so many bytes."""

    def __init__(self, after: int) -> None:
        self.after = after

    def stage(self, text: str) -> None:
        """Hear nothing."""

    def advance(self, done: int, total: int) -> None:
        if done >= self.after:
            raise KeyboardInterrupt


def test_a_folder_is_its_own_copy(tmp_path: Path, hub_server: LocalHub) -> None:
    folder = pico.save(pico.make_base("bert"), tmp_path / "model")
    hub = Hub(hub_server.endpoint)
    assert snapshot(hub.resolve(parse_spec(str(folder))), hub, tmp_path / "copies", Quiet()) == folder
    assert not (tmp_path / "copies").exists()


def test_a_repository_is_fetched_whole_without_other_weights(tmp_path: Path, hub_server: LocalHub) -> None:
    folder = pico.save(pico.make_base("bert"), tmp_path / "model", shard_bytes=30_000)
    hub_server.add_repo("org/model", {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx"}, folder=folder)
    hub = Hub(hub_server.endpoint)
    ref = hub.resolve(parse_spec("org/model"))
    copy = snapshot(ref, hub, tmp_path / "copies", Quiet())
    there = {p.relative_to(copy).as_posix(): file_digest(p) for p in copy.rglob("*") if p.is_file()}
    there.pop(".gitattributes")
    assert there == {p.name: file_digest(p) for p in folder.iterdir()}
    pico.load(copy)
    hub_server.log.clear()
    assert snapshot(ref, hub, tmp_path / "copies", Quiet()) == copy
    assert not hub_server.log.matching(side="cdn")


def test_an_interrupted_download_goes_on(tmp_path: Path, hub_server: LocalHub) -> None:
    folder = pico.save(pico.make_base("bert"), tmp_path / "model", shard_bytes=30_000)
    hub_server.add_repo("org/model", folder=folder)
    hub = Hub(hub_server.endpoint)
    ref = hub.resolve(parse_spec("org/model"))
    total = sum(path.stat().st_size for path in folder.iterdir())
    with pytest.raises(KeyboardInterrupt):
        snapshot(ref, hub, tmp_path / "copies", Stopping(total // 2))
    finished = [path.name for path in (tmp_path / "copies").rglob("*.safetensors")]
    assert finished
    hub_server.log.clear()
    copy = snapshot(ref, hub, tmp_path / "copies", Quiet())
    assert {p.name: file_digest(p) for p in folder.iterdir()}.items() <= {
        p.name: file_digest(p) for p in copy.iterdir()
    }.items()
    assert not [name for name in finished if hub_server.log.matching(f"/resolve/{ref.revision}/{name}", method="GET")]


def test_a_repository_without_weights(tmp_path: Path, hub_server: LocalHub) -> None:
    hub_server.add_repo("org/empty", {"README.md": b"nothing"})
    hub = Hub(hub_server.endpoint)
    with pytest.raises(NothingToCompare):
        snapshot(hub.resolve(parse_spec("org/empty")), hub, tmp_path, Quiet())
