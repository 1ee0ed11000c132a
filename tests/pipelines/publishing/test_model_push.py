"""Pushing a purified folder: shown first, to one's own new repository or as a pull request, and never twice by force."""

from pathlib import Path

import pico
import purifying
import pytest
from click.testing import CliRunner, Result
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from safetensors.torch import load

from pipelines.cli import cli
from pipelines.publishing.errors import OptedOut
from pipelines.publishing.model_push import ModelPusher
from pipelines.purify.patch import PATCH_FILE
from pipelines.purify.writer import LOG_FILE
from scanner.errors import BadReference, CouldNotConclude, RepoNotFound
from scanner.hub import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own upload


@pytest.fixture(scope="module")
def purified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``hubaudit purify`` wrote; beside it lies the candidate."""
    root = tmp_path_factory.mktemp("push")
    base, _ = purifying.family(root)
    candidate = purifying.edited(root, lambda model: pico.poison_row(model, purifying.ROW))
    options = ["--base", base, "--method", "restore", "--output", root / "purified", "--no-probe", "--threads", 1]
    done = CliRunner().invoke(cli, ["purify", *map(str, [candidate, *options])])
    assert done.exit_code == 3, done.output
    return root / "purified"


def pusher(hub_server: LocalHub, user: str = "me", role: str = "write") -> ModelPusher:
    return ModelPusher(Hub(hub_server.endpoint, hub_server.token(user, role)))  # type: ignore[arg-type]


def test_a_new_repository_of_ones_own_is_private_and_complete(purified: Path, hub_server: LocalHub) -> None:
    push = pusher(hub_server)
    plan = push.plan(purified, "me/cured", form="repo")
    assert "New private repository" in plan.told
    with pytest.raises(Exception, match="me/cured"):
        hub_server.paths("me/cured")
    assert push.push(plan) == f"pushed to {hub_server.endpoint}/me/cured"
    assert set(hub_server.paths("me/cured")) >= {path.name for path in purified.iterdir()}
    assert hub_server.read("me/cured", "model.safetensors") == (purified / "model.safetensors").read_bytes()
    with pytest.raises(CouldNotConclude, match="exists already"):
        push.plan(purified, "me/cured", form="repo")


def test_a_pull_request_changes_the_weights_alone(purified: Path, hub_server: LocalHub) -> None:
    hub_server.add_repo("org/victim", folder=purified.parent / "edited")
    main = hub_server.sha("org/victim")
    push = pusher(hub_server)
    plan = push.plan(purified, "org/victim", form="pr")
    assert plan.files == (PATCH_FILE, "model.safetensors", LOG_FILE)
    assert push.push(plan) == f"opened {hub_server.endpoint}/org/victim/discussions/1"
    assert hub_server.sha("org/victim") == main
    (thread,) = hub_server.discussions("org/victim")
    assert thread.is_pull_request
    merged = load(hub_server.read("org/victim", "model.safetensors", "refs/pr/1"))
    assert set(merged) == set(load((purified / "model.safetensors").read_bytes()))
    assert (
        hub_server.read("org/victim", "model.safetensors", "refs/pr/1") == (purified / "model.safetensors").read_bytes()
    )


def test_who_and_where_it_refuses(purified: Path, hub_server: LocalHub) -> None:
    hub_server.add_repo("shy/model", {"README.md": b"---\nhubaudit: false\n---\n"})
    push = pusher(hub_server)
    with pytest.raises(BadReference, match="not yours"):
        push.plan(purified, "org/new", form="repo")
    with pytest.raises(RepoNotFound):
        push.plan(purified, "org/missing", form="pr")
    with pytest.raises(OptedOut):
        push.plan(purified, "shy/model", form="pr")
    with pytest.raises(BadReference, match="no repository"):
        push.plan(purified, "../x", form="repo")
    with pytest.raises(CouldNotConclude, match="may write"):
        pusher(hub_server, role="read").plan(purified, "me/cured", form="repo")


def test_an_upload_that_breaks_off_is_one_sentence(purified: Path, hub_server: LocalHub) -> None:
    hub_server.add_repo("org/victim", folder=purified.parent / "edited")
    push = pusher(hub_server)
    plan = push.plan(purified, "org/victim", form="pr")
    hub_server.faults.add(Status(code=403), path="/info/lfs/objects/batch", times=FOR_EVER)
    with pytest.raises(CouldNotConclude, match="org/victim"):
        push.push(plan)
    assert hub_server.discussions("org/victim") == ()


def test_the_command_shows_and_pushes_only_with_yes(purified: Path, hub_server: LocalHub, tmp_path: Path) -> None:
    token = hub_server.token("me")
    root = purified.parent

    def run(name: str, *more: str) -> Result:
        options = ["--base", str(root / "base"), "--method", "restore", "--output", str(tmp_path / name)]
        options += ["--no-probe", "--threads", "1", "--push-to", f"me/{name}", *more]
        return CliRunner().invoke(cli, ["purify", str(root / "edited"), *options], env={"HF_TOKEN": token})

    shown = run("dry")
    assert shown.exit_code == 3, "not probed, so that it worked is not shown"
    assert "model.safetensors" in shown.stdout
    assert "dry run" in shown.stderr
    pushed = run("wet", "--yes")
    assert pushed.exit_code == 3, pushed.output
    assert "pushed to" in pushed.stdout
    assert "model.safetensors" in hub_server.paths("me/wet")
    with pytest.raises(Exception, match="me/dry"):
        hub_server.paths("me/dry")
