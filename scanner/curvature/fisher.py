"""The diagonal of the empirical Fisher matrix, one gradient per example, one tensor at a time."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def mean_squared_gradients(
    model: "nn.Module", losses: "Iterable[Tensor]", *, told: Callable[[int], None] | None = None
) -> "dict[str, Tensor]":
    """Return (1/n) Σ (∂ℓ/∂w_i)² over n losses for every parameter that takes a gradient, in its own shape and dtype.

    With ℓ = −log p(y|x; w) of single examples this is the diagonal of the empirical Fisher matrix at these weights;
    a squared mini-batch mean would be another estimator. Each gradient is squared and let go once it is complete, so
    that one copy of the model and one gradient are held besides the model itself. A tied tensor counts once, under its
    first name. Source: Zhang et al. 2023, "Diffusion Theory as a Scalpel" (Findings of ACL).

    Args:
        model: as it is to be differentiated (evaluation mode, for a figure that does not depend on chance).
        losses: scalars that depend on the model, made one after the other.
        told: hears how many losses are done.

    Raises:
        ValueError: there are no losses.
    """
    import torch  # noqa: PLC0415  # heavy, and only scans with data need it

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def folding(total: "Tensor") -> "Callable[[Tensor], None]":
        def fold(parameter: "Tensor") -> None:
            if parameter.grad is not None:
                total.addcmul_(parameter.grad, parameter.grad)
                parameter.grad = None

        return fold

    hooks = [_hooked(p, folding(sums[name])) for name, p in parameters.items()]
    count = 0
    try:
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            count += 1
            if told is not None:
                told(count)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("The Fisher matrix needs at least one example.")
    return {name: total.div_(count) for name, total in sums.items()}


def _hooked(parameter: "Tensor", fold: "Callable[[Tensor], None]") -> Any:
    return parameter.register_post_accumulate_grad_hook(fold)  # type: ignore[no-untyped-call]
