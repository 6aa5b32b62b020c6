"""Linear layer, softmax and cross entropy in one: the logits of a large vocabulary are passed over once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CHUNK = 1 << 18  # logits that are worked on together, so that they stay in the cache


def linear_cross_entropy(h_NH: Tensor, head: nn.Linear, y_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean cross entropy (nats) of the classes `y_N` under softmax(head(h_NH)), a scalar.

    `dtype`: of the three matrix products; exponentials and sums are in float32 at the least. The gradient of the logits
    is worked out together with the loss, which saves most of the time beside the products.
    """
    loss: Tensor = _LinearCrossEntropy.apply(h_NH, head.weight, head.bias, y_N, dtype)  # type: ignore[assignment]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_NH: Tensor, w_VH: Tensor, bias_V: Tensor, y_N: Tensor, dtype: torch.dtype) -> Tensor:
        h, w = h_NH.to(dtype), w_VH.to(dtype)
        gradient_NV = torch.mm(h, w.t())  # the logits, which give way to their gradient
        count, words = gradient_NV.shape
        rows = count if h.is_cuda else max(1, _CHUNK // words)
        wide = torch.promote_types(dtype, torch.float32)
        nats = h_NH.new_zeros((), dtype=wide)
        for begin in range(0, count, rows):
            chunk, y = gradient_NV[begin : begin + rows], y_N[begin : begin + rows, None]
            logits = chunk.to(wide) + bias_V
            whole = logits.logsumexp(1, keepdim=True)
            nats += (whole - logits.gather(1, y)).sum()
            share = logits.sub_(whole).exp_()
            share.scatter_add_(1, y, share.new_full(y.shape, -1.0))
            chunk.copy_(share.div_(count))
        ctx.save_for_backward(gradient_NV, h, w)
        ctx.dtypes = h_NH.dtype, w_VH.dtype, bias_V.dtype
        return nats / count

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        gradient_NV, h, w = ctx.saved_tensors
        of_h, of_w, of_bias = ctx.dtypes
        by = outer[0]
        dh_NH = torch.mm(gradient_NV, w).to(of_h).mul_(by)
        dw_VH = torch.mm(gradient_NV.t(), h).to(of_w).mul_(by)
        dbias_V = torch.mv(gradient_NV.t(), gradient_NV.new_ones(len(gradient_NV))).to(of_bias).mul_(by)
        return dh_NH, dw_VH, dbias_V, None, None
