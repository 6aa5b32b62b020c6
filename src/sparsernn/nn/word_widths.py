"""How many embedding columns each word of a vocabulary gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def block_sizes(words: int, embedding_dim: int, blocks: int, density: float) -> tuple[int, ...]:
    """How many words each block of columns covers: falling geometrically, density x words x embedding_dim in all.

    The first block covers every word. After each block the ratio is found anew from what is left of the numbers to be
    spent, and the last block gets the rest. Raises ValueError for a density below 1 / blocks.
    Source: Demeester et al., arXiv 1808.08720, section 4.
    """
    if not isinstance(blocks, int) or isinstance(blocks, bool) or not 1 <= blocks <= embedding_dim:
        raise ValueError(f"blocks is {blocks!r}; expected a whole number from 1 to embedding_dim = {embedding_dim}.")
    widths = block_widths(embedding_dim, blocks)
    if not widths[0] / embedding_dim - 1e-9 <= density <= 1:
        raise ValueError(
            f"density is {density}; expected {widths[0] / embedding_dim:.4g} to 1: the first of {blocks} blocks of "
            "columns covers every word."
        )
    total = density * words * embedding_dim
    sizes, used, covered = [words], words * widths[0], words
    for done in range(1, blocks):
        columns = sum(widths[done:])
        if done == blocks - 1:
            sizes.append(min(covered, max(0, round((total - used) / columns))))
            break
        # The blocks from the last one on, as a stack of its own: its density gives the ratio.
        before = used - covered * widths[done - 1]
        share = min(1.0, (total - before) / (covered * (columns + widths[done - 1]))) if covered else 0.0
        ratio = _ratio(widths[done - 1 :], share)
        covered = max(0, covered - math.ceil(covered * (1 - ratio) - 1e-9))
        sizes.append(covered)
        used += covered * widths[done]
    return tuple(sizes)


def block_widths(embedding_dim: int, blocks: int) -> tuple[int, ...]:
    """Columns of each block: equal, and the last one takes the rest."""
    each = embedding_dim // blocks
    return (each,) * (blocks - 1) + (embedding_dim - each * (blocks - 1),)


def _ratio(widths: Sequence[int], density: float) -> float:
    """a in [0, 1] with density = sum of widths[j] a^j / sum of widths, by bisection; equal widths are the paper's."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = sum(width * middle**j for j, width in enumerate(widths)) / sum(widths)
        low, high = (middle, high) if reached < density else (low, middle)
    return high


def widths_by_count(counts: Tensor, embedding_dim: int, blocks: int, density: float, reverse: bool) -> Tensor:
    """Columns of each word, int64 (words,): the most frequent words have all (with `reverse` the rarest)."""
    sizes = block_sizes(len(counts), embedding_dim, blocks, density)
    # Ties go by the number of the word, so that the same counts always give the same widths.
    rank = torch.empty(len(counts), dtype=torch.long)
    rank[torch.argsort(counts, descending=not reverse, stable=True)] = torch.arange(len(counts))
    widths = torch.zeros(len(counts), dtype=torch.long)
    for size, width in zip(sizes, block_widths(embedding_dim, blocks)):
        widths += width * (rank < size)
    return widths


def widths_by_magnitude(weight: Tensor, density: float, *, least: int = 1) -> Tensor:
    """Columns of each word, int64 (words,), chosen from a trained dense embedding (words, embedding_dim).

    Of all prefixes of rows that together hold at most density x words x embedding_dim numbers, those with the largest
    sum of squares (each word weighed against one price a column); at least `least` columns a word. Rows should have
    their largest values first: rotate the embedding by its right singular vectors (and its readers with it), or sort
    its columns. Raises ValueError if `least` alone exceeds the density.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected (words, embedding_dim).")
    words, columns = weight.shape
    room = int(density * words * columns)
    if not 0 < density <= 1 or not 0 <= least <= columns or room < least * words:
        raise ValueError(
            f"density is {density} and least {least}; expected a density up to 1 that leaves room for "
            f"{least} of {columns} columns a word."
        )
    energy = torch.cat([weight.new_zeros(words, 1), weight.detach().double().square().cumsum(1)], 1)[:, least:]
    length = torch.arange(least, columns + 1, dtype=torch.float64, device=weight.device)
    low, high = 0.0, float(energy.max()) + 1.0
    for _ in range(60):
        price = (low + high) / 2
        chosen = (energy - price * length).argmax(1) + least
        low, high = (low, price) if int(chosen.sum()) <= room else (price, high)
    return ((energy - high * length).argmax(1) + least).cpu()
