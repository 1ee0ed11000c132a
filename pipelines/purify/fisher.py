"""The diagonal of the empirical Fisher matrix on a few clean examples, one gradient per example."""

from collections.abc import Callable

from pipelines.purify.states import State
from pipelines.purify.subject import Examples, Subject
from scanner.curvature.fisher import mean_squared_gradients

EPSILON = 1e-8
"""Added to every entry [recalled (weak)]."""


def diagonal_fisher(
    subject: Subject, examples: Examples, *, heartbeat: Callable[[int, int], None] | None = None
) -> State:
    """Return Ĥ_i = (1/|D|) Σ (∂ log p(y|x; w)/∂w_i)² + ε for every parameter, float32, in the parameter's shape.

    Per-example gradients with dropout off and the true labels (``scanner.curvature.fisher``). For causal models log p
    is the mean over the tokens of a text. Source: Zhang et al. 2023, "Diffusion Theory as a Scalpel" (Findings of ACL);
    Fisher in place of the Hessian [recalled (firm)].

    Raises:
        ValueError: there are no examples.
    """
    model = subject.model.eval()
    losses = (subject.loss(model, subject.collate(examples, [k])) for k in range(len(examples)))
    told = (lambda done: heartbeat(done, len(examples))) if heartbeat is not None else None
    return {name: mean.add_(EPSILON) for name, mean in mean_squared_gradients(model, losses, told=told).items()}
