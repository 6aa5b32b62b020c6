"""Architectures as users write them, each with the readers that `trace` has to find."""

from . import (
    along_time,
    attention,
    attention_pooling,
    beside,
    cells_in_loops,
    encoders,
    first_states,
    hand_cells,
    heads,
    highway,
    language_models,
    norms,
    packed,
    pooling,
    registered_cells,
    seq2seq,
    siamese,
    stacked,
    unknown,
    weights,
)

FAMILIES = (
    stacked,
    beside,
    first_states,
    pooling,
    along_time,
    norms,
    heads,
    attention,
    attention_pooling,
    siamese,
    seq2seq,
    encoders,
    language_models,
    cells_in_loops,
    hand_cells,
    highway,
    registered_cells,
    packed,
    unknown,
    weights,
)
ARCHITECTURES = {one.name: one for family in FAMILIES for one in family.ARCHITECTURES}
assert len(ARCHITECTURES) == sum(len(family.ARCHITECTURES) for family in FAMILIES), "two architectures of one name"
