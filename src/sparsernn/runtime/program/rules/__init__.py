"""What each of torch's operations is in one time step: RULES, by the name of the operation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..eliminate import Rule
from . import convolutions, features, moves, padding, pointwise, recurrent, reductions, slices

RULES: Mapping[str, Rule] = MappingProxyType(
    pointwise.RULES | moves.RULES | features.RULES | slices.RULES | padding.RULES | convolutions.RULES
    | reductions.RULES | recurrent.RULES
)  # fmt: skip
