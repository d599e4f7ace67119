"""The Hessian by differentiating gradients again: all of it, its exact diagonal, and an estimate of its diagonal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor

from ..counts import check_count
from .passes import Pass, first_line, refuse_hooked
from .recording import Call

__all__ = ["Exact", "Hutchinson", "hessian_rows"]


def hessian_rows(grads: Sequence[Tensor], parameters: Sequence[Tensor], rows: int) -> Iterator[Tensor]:
    """Give the Hessian's rows, up to `rows` at a time, each as long as all parameters are together.

    Raises `RuntimeError` for a model whose second derivative PyTorch does not make, or only one row at a time.

    `grads` are the gradients with respect to `parameters`, made with `create_graph`.
    """
    sizes = [each.numel() for each in parameters]
    total = sum(sizes)
    for first in range(0, total, rows):
        count = min(rows, total - first)
        ones = grads[0].new_zeros(count, total)
        ones[:, first : first + count].fill_diagonal_(1)
        pieces = [
            piece.reshape(count, *each.shape)
            for piece, each in zip(torch.split(ones, sizes, 1), parameters, strict=True)
        ]
        products = _several_products(grads, parameters, pieces, count)
        yield torch.cat([each.reshape(count, -1) for each in products], 1)


def _several_products(
    grads: Sequence[Tensor], parameters: Sequence[Tensor], vectors: Sequence[Tensor], count: int
) -> Sequence[Tensor]:
    """Return the Hessian times each of `count` vectors, the first dimension of `vectors`, from one pass of PyTorch's."""
    first = [each[0] for each in vectors]
    if count == 1:
        return [each.unsqueeze(0) for each in _products(grads, parameters, first)]
    try:
        return _products(grads, parameters, vectors, batched=True)
    except RuntimeError as error:
        _products(grads, parameters, first)  # where there is no second derivative at all, this tells
        raise RuntimeError(
            f"PyTorch cannot make {count} rows of this model's Hessian at once ({first_line(error)}); allowed is rows=1"
        ) from error


def _products(
    grads: Sequence[Tensor], parameters: Sequence[Tensor], vectors: Sequence[Tensor], *, batched: bool = False
) -> Sequence[Tensor]:
    """Return the Hessian times `vectors`; where `batched`, times each of several, which are their first dimension."""
    refuse_hooked(parameters)
    # A gradient that depends on no parameter has a derivative of 0, and autograd does not take it.
    varying = [number for number, grad in enumerate(grads) if grad.requires_grad]
    if not varying:
        return [torch.zeros_like(each) for each in vectors]
    products = torch.autograd.grad(
        [grads[number] for number in varying],
        parameters,
        [vectors[number] for number in varying],
        retain_graph=True,
        is_grads_batched=batched,
        allow_unused=True,
    )
    return [torch.zeros_like(vector) if each is None else each for each, vector in zip(products, vectors, strict=True)]


class _Again:
    """What differentiates the gradients of any model once more."""

    differentiable: ClassVar = True
    repeats: ClassVar = False

    def needs_recording(self) -> bool:
        return False

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:  # noqa: ARG002  # any pass will do
        return [], False

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        names = list(run.grads)
        arrays = self.diagonal([run.grads[name] for name in names], [run.parameters[name] for name in names])
        return {name: each.detach() for name, each in zip(names, arrays, strict=True)}

    def diagonal(self, grads: Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        raise NotImplementedError


class Exact(_Again):
    """The diagonal itself: as many products with the Hessian as there are parameters, for small nets."""

    def __init__(self, *, rows: int = 64) -> None:
        """`rows` products are made at a time, which takes that many times the memory of a backward pass.

        Some layers (group normalisation) need `rows=1`.
        """
        check_count("rows", rows)
        self._rows: Final = rows

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        run.refuse_sparse("exact")
        return super().__call__(run)

    def diagonal(self, grads: Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        parts, first = [], 0
        for rows in hessian_rows(grads, parameters, self._rows):
            parts.append(rows.detach()[:, first : first + len(rows)].diagonal())
            first += len(rows)
        pieces = torch.split(torch.cat(parts), [each.numel() for each in parameters])
        return [piece.reshape(each.shape).to(each.dtype) for piece, each in zip(pieces, parameters, strict=True)]


class Hutchinson(_Again):
    """The mean of z * (H z) over vectors z of random signs (Hutchinson 1990; Bekas et al. 2007): unbiased."""

    def __init__(self, *, samples: int = 1, generator: torch.Generator | None = None) -> None:
        """`samples` vectors are drawn, from `generator` or PyTorch's own."""
        check_count("samples", samples)
        self._samples: Final = samples
        self._generator: Final = generator

    def diagonal(self, grads: Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        sums = [torch.zeros_like(each) for each in parameters]
        for _ in range(self._samples):
            signs = [self._signs(each) for each in parameters]
            products = _products(grads, parameters, signs)
            sums = [sum + sign * product.detach() for sum, sign, product in zip(sums, signs, products, strict=True)]
        return [each / self._samples for each in sums]

    def _signs(self, like: Tensor) -> Tensor:
        bits = torch.randint(0, 2, like.shape, generator=self._generator, dtype=like.dtype, device=like.device)
        return 2 * bits - 1
