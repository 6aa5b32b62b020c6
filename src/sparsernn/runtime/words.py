"""int8 weights as layouts have them: one scale a row, and four columns to a 32-bit word.

A row of x becomes round(x / s) + 128 as unsigned bytes, s = max |x| / 127; a row of W becomes round(w / t), t its
largest weight over 127. One instruction (VNNI) multiplies the four bytes of a word of 16 rows with a word of x and
adds, exact in int32. What the 128 adds, 128 times the sum of the row of W, is known beforehand and taken away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..structure.coded import CodedMatrix
from ..structure.grids import integers
from .held import Numbers
from .layout import Layout
from .order import WIDTH
from .pack import Arrangement, Number, Packed, blocks_of, living
from .processor import Processor

MOST = 48  # rows of x that are quantised together


class WordLayout(Layout):
    """A layout of words: the costs are of one word of a block of rows."""

    columns = 4

    def runs_on(self, processor: Processor) -> bool:
        return processor.vnni

    def words(self, weight: Numbers, arrangement: Arrangement) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Living blocks, their weights (blocks, words, WIDTH, 4) int8, scales and shifts (blocks, WIDTH)."""
        small, scales = (weight.numbers(), weight.scales) if isinstance(weight, CodedMatrix) else integers(weight)
        assert scales is not None
        chosen = living(small, arrangement)
        tall = blocks_of(torch.nn.functional.pad(small, (0, -weight.shape[1] % 4)), arrangement, chosen)
        words = tall.view(len(chosen), WIDTH, tall.shape[2] // 4, 4).transpose(1, 2).contiguous()
        own = torch.cat([scales, scales.new_zeros(1)])[arrangement.rows][chosen].contiguous()
        return chosen, words, own, (128 * tall.sum(2, dtype=torch.int32)).contiguous()

    def of_words(
        self, values: Tensor, blocks: Tensor, inputs: int, arrangement: Arrangement, scales: Tensor, shifts: Tensor,
        *more: Tensor,
    ) -> Packed:  # fmt: skip
        """The packed matrix: COLUMNS of its plan counts words, the fields of word_tiles.py follow."""
        scratch = MOST * (-(-inputs // 64) * 64) + MOST * 4
        fields = (scales, shifts, Number(inputs), *more)
        return self.packed(values, blocks, -(-inputs // 4), arrangement, *fields, scratch=scratch)


def rows_of_words(words: Tensor, columns: int) -> Tensor:
    """(blocks, words, WIDTH x 4) -> (blocks, WIDTH, columns)."""
    blocks, count, _ = words.shape
    return words.view(blocks, count, WIDTH, 4).transpose(1, 2).reshape(blocks, WIDTH, 4 * count)[..., :columns]
