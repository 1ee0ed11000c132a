"""The diagonal of the empirical Fisher matrix on a few clean examples, one gradient per example."""

from collections.abc import Callable

import torch

from pipelines.purify.states import State
from pipelines.purify.subject import Examples, Subject

EPSILON = 1e-8
"""Added to every entry [recalled (weak)]."""


def diagonal_fisher(
    subject: Subject, examples: Examples, *, heartbeat: Callable[[int, int], None] | None = None
) -> State:
    """Return Ĥ_i = (1/|D|) Σ (∂ log p(y|x; w)/∂w_i)² + ε for every parameter, float32, in the parameter's shape.

    Per-example gradients with dropout off and the true labels, at the model's present weights; a squared mini-batch
    mean would be another estimator. For causal models log p is the mean over the tokens of a text. Source: Zhang et
    al. 2023, "Diffusion Theory as a Scalpel" (Findings of ACL); Fisher in place of the Hessian [recalled (firm)].

    Raises:
        ValueError: there are no examples.
    """
    if not len(examples):
        raise ValueError("The Fisher matrix needs at least one example.")
    model = subject.model.eval()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for done in range(len(examples)):
        loss = subject.loss(model, subject.collate(examples, [done]))
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name].addcmul_(gradient, gradient)
        if heartbeat is not None:
            heartbeat(done + 1, len(examples))
    return {name: total.div_(len(examples)).add_(EPSILON) for name, total in sums.items()}
