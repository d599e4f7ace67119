"""What the estimators are compared with: their definitions, worked with whole Jacobians and Hessians."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.conformance.tolerances import SHARES
from torch.autograd.functional import hessian, jacobian

import torch
from torch import Tensor, nn

__all__ = ["assert_near", "chain", "diagonal", "gradients_one_by_one", "propagated"]


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert that both have arrays of the same names, shapes and dtypes, with elements within the tolerance."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        assert not found[name].requires_grad
        allowed = SHARES[f"curvature, {str(array.dtype).removeprefix('torch.')}"].amount * array.abs().max()
        assert (found[name] - array).abs().max() <= allowed, (name, found[name], array)


def chain(layers: Sequence[nn.Module], dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """Return the layers one after another, with random weights and biases."""
    net, generator = nn.Sequential(*layers).to(dtype), torch.Generator().manual_seed(seed)
    for each in net.parameters():
        each.data = torch.randn(each.shape, generator=generator, dtype=torch.float64).to(dtype) / 2
    return net


def propagated(
    net: nn.Sequential, loss: Callable[..., Tensor], x: Tensor, targets: Tensor, *, second_term: bool = True
) -> dict[str, Tensor]:
    """Propagate second derivatives back as Becker & LeCun (1988) define it: by squared Jacobians, and by each f''."""
    inputs = [x]
    for layer in net:
        inputs.append(layer(inputs[-1]).detach())
    outputs = inputs.pop()
    size = outputs.numel()
    h = hessian(lambda y: loss(y, targets), outputs).reshape(size, size).diagonal()
    g = jacobian(lambda y: loss(y, targets), outputs).reshape(size)
    found = {}
    for (name, layer), x in zip(reversed(net._modules.items()), reversed(inputs), strict=True):
        for own, weight in layer.named_parameters():
            by_weight = jacobian(
                lambda w, own=own, layer=layer, x=x: torch.func.functional_call(layer, {own: w}, (x,)), weight.detach()
            )
            found[f"{name}.{own}"] = (h @ by_weight.reshape(len(h), -1).square()).reshape(weight.shape)
        by_input = jacobian(layer, x).reshape(len(h), -1)
        h = h @ by_input.square()
        if second_term:
            weighted = hessian(lambda x, layer=layer, g=g: (g * layer(x).reshape(-1)).sum(), x)
            h = h + weighted.reshape(x.numel(), x.numel()).diagonal()
        g = g @ by_input
    return {name: found[name].detach() for name, _ in net.named_parameters()}


def diagonal(net: nn.Module, loss: Callable[..., Tensor], x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the diagonal of the Hessian of the batch's loss."""
    found = {}
    for name, each in net.named_parameters():
        whole = hessian(
            lambda w, name=name: loss(torch.func.functional_call(net, {name: w}, (x,)), targets), each.detach()
        )
        found[name] = whole.reshape(each.numel(), each.numel()).diagonal().reshape(each.shape)
    return found


def gradients_one_by_one(net: nn.Module, loss: Callable[..., Tensor], x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the mean of squared gradients, by a loop over the examples."""
    parameters = dict(net.named_parameters())
    sums = {name: torch.zeros_like(each) for name, each in parameters.items()}
    for n in range(len(x)):
        grads = torch.autograd.grad(loss(net(x[n : n + 1]), targets[n : n + 1]), list(parameters.values()))
        for name, grad in zip(parameters, grads, strict=True):
            sums[name] += grad**2
    return {name: sum / len(x) for name, sum in sums.items()}
