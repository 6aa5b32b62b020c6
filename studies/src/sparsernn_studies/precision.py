"""The precision of a training's products that is fastest here."""

from __future__ import annotations

from typing import Literal

import torch

Products = Literal["float32", "bfloat16"]


def resolved(precision: Products | Literal["auto"]) -> Products:
    """`precision`; "auto": bfloat16 where the processor multiplies in it, elsewhere float32.

    Where it can't, torch makes do with conversions, which take longer than a product in float32.
    """
    if precision != "auto":
        return precision
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not in every version of torch
    return "bfloat16" if supported is not None and supported() else "float32"
