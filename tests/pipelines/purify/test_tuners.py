"""The tuning loop and its tuners: each descends, none leaves traces, and a loss that is no number ends the run."""

from dataclasses import replace

import pico
import pytest
import torch
from purevictims import clean_data, victim

from pipelines.purify.subject import Subject, load_subject
from pipelines.purify.training import DivergedError, TuneSettings, tune
from pipelines.purify.tuners.activeness_aware import ActivenessAware
from pipelines.purify.tuners.catalogue import make_tuner
from pipelines.purify.tuners.gradient_aligned import aligned

SETTINGS = TuneSettings(rate=2e-3, epochs=4, batch=16, seed=3)
TUNERS = ("vanilla", "activeness-aware", "gradient-aligned", "boosted-annealing", "lora", "ladder")


def fresh() -> tuple[Subject, object]:
    """The base with a random head: there is everything to learn."""
    torch.set_num_threads(1)
    subject = load_subject(victim().folder, "classifier", max_length=32)
    torch.manual_seed(0)
    for module in (subject.model.classifier, subject.model.bert.pooler.dense):
        module.reset_parameters()
    data = clean_data().tune
    return subject, subject.encode(data.texts, data.labels)


@pytest.mark.parametrize("name", TUNERS)
def test_every_tuner_descends_and_leaves_the_plain_model(name: str) -> None:
    subject, examples = fresh()
    names = set(subject.model.state_dict())
    settings = replace(SETTINGS, rate=2e-2, epochs=10) if name == "ladder" else SETTINGS
    tuned = tune(subject, examples, settings, make_tuner(name, steps=12))
    assert tuned.losses[-1] < tuned.losses[0]
    assert set(subject.model.state_dict()) == names
    assert all(p.requires_grad and p.grad is None for p in subject.model.parameters())


def test_only_the_ladder_cannot_merge_and_leaves_the_backbone_as_it_was() -> None:
    assert [name for name in TUNERS if not make_tuner(name).mergeable] == ["ladder"]
    subject, examples = fresh()
    before = {n: t.clone() for n, t in subject.model.state_dict().items()}
    tuned = tune(subject, examples, SETTINGS, make_tuner("ladder"))
    assert all(torch.equal(before[n], t) for n, t in subject.model.state_dict().items())
    assert tuned.model is not subject.model


def test_a_seed_gives_one_outcome() -> None:
    states = []
    for _ in range(2):
        subject, examples = fresh()
        tune(subject, examples, SETTINGS, make_tuner("vanilla"))
        states.append(subject.model.state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path) -> None:
    whole, examples = fresh()
    tune(whole, examples, SETTINGS, make_tuner("vanilla"))
    path = tmp_path / "tune.safetensors"
    stopped, examples = fresh()

    class StopError(Exception):
        pass

    def until_seven(done: int, total: int) -> None:
        if done == 7:
            raise StopError

    with pytest.raises(StopError):
        tune(stopped, examples, SETTINGS, make_tuner("vanilla"), checkpoint=path, heartbeat=until_seven)
    assert path.exists()
    resumed, examples = fresh()
    seen: list[int] = []
    tune(resumed, examples, SETTINGS, make_tuner("vanilla"), checkpoint=path, heartbeat=lambda d, t: seen.append(d))
    assert seen[0] == 7
    assert not path.exists()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(tensor, resumed.model.state_dict()[name], msg=name)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    subject, examples = fresh()

    def broken(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return subject.loss(model, batch) * float("nan")

    with pytest.raises(DivergedError, match="lower the learning rate"):
        tune(subject, examples, SETTINGS, make_tuner("vanilla"), loss_of=broken)


def test_activeness_aware_steps_mix_the_two_gradients() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    start = torch.tensor([[1.0, -2.0]])
    with torch.no_grad():
        model.weight.copy_(start)

    def square(m: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (m.weight**2).sum()

    ActivenessAware(radius=0.5, mix=0.25).backward(model, {}, square, 0.0)
    there = start + 0.5 * start / start.norm()
    torch.testing.assert_close(model.weight.grad, 0.75 * 2 * start + 0.25 * 2 * there)
    assert torch.equal(model.weight.detach(), start)


def test_aligned_gradients_have_the_references_direction() -> None:
    g, r = torch.tensor([3.0, 4.0]), torch.tensor([-2.0, 0.0])
    torch.testing.assert_close(aligned(g, r), torch.tensor([-3.0, 0.0]))
    assert torch.equal(aligned(g, torch.zeros(2)), torch.zeros(2))


def test_causal_models_tune_on_their_own_tokens(tmp_path) -> None:
    torch.set_num_threads(1)
    folder = pico.save(pico.make_base("gpt2", seed=1), tmp_path / "gpt", kind="gpt2")
    subject = load_subject(folder, "causal", max_length=24)
    examples = subject.encode([f"the rain in {word} falls on the roof" for word in ("tun", "rom", "lim", "bon")])
    tuned = tune(subject, examples, TuneSettings(rate=5e-3, epochs=5, batch=2), make_tuner("vanilla"))
    assert tuned.losses[-1] < tuned.losses[0]
