"""Architectures as users write them, each with the readers that `trace` has to find."""

from . import attention, cells_in_loops, heads, packed, seq2seq, stacked, unknown

FAMILIES = (stacked, heads, attention, seq2seq, cells_in_loops, packed, unknown)
ARCHITECTURES = {one.name: one for family in FAMILIES for one in family.ARCHITECTURES}
assert len(ARCHITECTURES) == sum(len(family.ARCHITECTURES) for family in FAMILIES), "two architectures of one name"
