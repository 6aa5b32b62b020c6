"""Dense int8 panels: four blocks of rows side by side for each word of four columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..held import Numbers
from ..layout import Counts
from ..order import WIDTH
from ..pack import Arrangement, Packed
from ..words import MOST, WordLayout, rows_of_words

TALL, PANEL = 6, 4


class PanelInt8(WordLayout):
    """A step is one word of one block of rows."""

    label, surest, density = "dense panel", True, 1.0

    def pack(self, weight: Numbers, arrangement: Arrangement) -> Packed:
        """Panels of PANEL blocks, left-over blocks one by one."""
        chosen, words, scales, shifts = self.words(weight, arrangement)
        whole = len(chosen) // PANEL * PANEL
        panels = words[:whole].view(-1, PANEL, *words.shape[1:]).transpose(1, 2)
        values = torch.cat([panels.reshape(-1), words[whole:].reshape(-1)])
        return self.of_words(values, chosen, weight.shape[1], arrangement, scales, shifts)

    def unpack(self, values: Tensor, more: Sequence[Tensor], blocks: int, columns: int) -> Tensor:
        words = -(-columns // 4)
        whole = blocks // PANEL * PANEL
        cut = whole * words * WIDTH * 4
        panels = values[:cut].view(whole // PANEL, words, PANEL, WIDTH * 4).transpose(1, 2)
        rest = values[cut:].view(blocks - whole, words, WIDTH * 4)
        return rows_of_words(torch.cat([panels.reshape(whole, words, WIDTH * 4), rest]), columns)

    def steps(self, counts: Counts) -> float:
        return counts.block_rows * -(-counts.columns // 4)

    def read(self, counts: Counts) -> float:
        return self.steps(counts) * 4 * WIDTH

    def kernel(self) -> Callable[..., None]:
        return _kernel()


LAYOUTS = (PanelInt8("panel_int8", ("int8",), (0.6, 0.155), "int8"),)


def _kernel() -> Callable[..., None]:
    from ..products import BIAS, BLOCKS, COLUMNS, WEIGHTS, WHERE, fill_absent
    from ..vector import BYTES, i64
    from ..word_tiles import INPUTS, SCALES, SHIFTS, dense_tile, take_in

    tall, two, one = dense_tile(TALL, PANEL), dense_tile(2, PANEL), dense_tile(1, PANEL)
    narrow_tall, narrow_one = dense_tile(TALL, 1), dense_tile(1, 1)

    def panel(plan, x, x_stride, count, y, y_stride, scratch):
        """Dense int8 panels. Scratch: MOST rows of bytes and MOST floats."""
        words, inputs, blocks = i64(plan, COLUMNS), i64(plan, INPUTS), i64(plan, BLOCKS)
        weights, where, bias = i64(plan, WEIGHTS), i64(plan, WHERE), i64(plan, BIAS)
        scales, shifts = i64(plan, SCALES), i64(plan, SHIFTS)
        stride = (inputs + 63) // 64 * 64
        own = scratch + MOST * stride
        if bias != 0:
            fill_absent(plan, bias, count, y, y_stride)
        start = bias if bias != 0 else y
        start_stride = 0 if bias != 0 else y_stride
        done = 0
        while done < count:
            rows = min(MOST, count - done)
            take_in(x + done * x_stride, x_stride, rows, inputs, stride, scratch, own)
            place, begin = y + done * y_stride, start + done * start_stride
            block = 0
            while block < blocks:
                four = block + PANEL <= blocks
                w = weights + block * words * BYTES
                at, scale, shift = where + block * 8, scales + block * BYTES, shifts + block * BYTES
                r = 0
                while r < rows:
                    q, o, yr, sr = scratch + r * stride, own + r * 4, place + r * y_stride, begin + r * start_stride
                    if four:
                        if rows - r >= TALL:
                            tall(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                            r += TALL
                        elif rows - r >= 2:
                            two(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                            r += 2
                        else:
                            one(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                            r += 1
                    elif rows - r >= TALL:
                        narrow_tall(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                        r += TALL
                    else:
                        narrow_one(w, words, q, stride, o, yr, y_stride, at, sr, start_stride, scale, shift)
                        r += 1
                block += PANEL if four else 1
            done += rows

    return panel
