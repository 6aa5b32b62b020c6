"""Every product layout multiplies right, writes only its own rows, and gives each row the same bits in any batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsernn.runtime import costs
from sparsernn.runtime.compiled import function
from sparsernn.runtime.layouts import LAYOUTS, offered
from sparsernn.runtime.pack import WIDTH, Arrangement, slot_row, unit_rows
from sparsernn.runtime.processor import processor

KNOWN = [name for name, layout in LAYOUTS.items() if any(name in offered(p) for p in layout.precisions)]
CANARY = 12345.0


def product(layout: str, weight: Tensor, x: Tensor, gates: int, bias: Tensor | None) -> Tensor:
    """W x (+ bias, or + ones) for every row, through the kernel, in torch's order of rows; checks the canaries."""
    hidden = weight.shape[0] // gates
    rows, where = unit_rows(hidden, gates, tuple(range(gates)), gates)
    start = None if bias is None else slot_row(bias.view(gates, -1))
    packed = LAYOUTS[layout].pack(weight, Arrangement(rows, where, start, rows.numel()))
    count, width = len(x), rows.numel()
    y = torch.full((count + 2, width + 8), CANARY)
    y[1:-1, 4 : 4 + width] = 1.0
    scratch = torch.full((packed.scratch // 4 + 8,), CANARY)
    before = x.clone()
    inner = y[1:, 4:]
    function(packed.name, 7)(
        packed.plan, x.data_ptr(), x.stride(0) * 4, count, inner.data_ptr(), (width + 8) * 4, scratch[4:].data_ptr()
    )
    got = y[1:-1, 4 : 4 + width].clone()
    y[1:-1, 4 : 4 + width] = CANARY
    assert (y == CANARY).all() and (scratch[:4] == CANARY).all() and (scratch[-4:] == CANARY).all()
    assert torch.equal(x.nan_to_num(), before.nan_to_num())
    order = rows.view(-1)
    result = torch.empty(count, weight.shape[0])
    result[:, order[order >= 0]] = got[:, order >= 0]
    return result


def bound(layout: str, weight: Tensor, x: Tensor) -> Tensor | float:
    """What rounding the weights (and for int8 the inputs) may change, at most; 0 for float32."""
    w, v = weight.double().abs(), x.double().abs()
    if LAYOUTS[layout].weights == "bfloat16":
        return v @ (w / 256).t()
    if LAYOUTS[layout].weights == "int8":
        off_w, off_x = w.amax(1, keepdim=True) / 254, v.amax(1, keepdim=True) / 254
        return v @ off_w.expand_as(w).t() + off_x.expand_as(v) @ (w + off_w).t()
    return 0.0


def matrix(rows: int, columns: int, density: float, blocks: bool) -> Tensor:
    keep = torch.rand(-(-rows // WIDTH) if blocks else rows, columns) < density
    keep = keep.repeat_interleave(WIDTH, 0)[:rows] if blocks else keep
    return torch.randn(rows, columns) * keep


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_products_are_right_and_stay_inside(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    layout, gates = draw(st.sampled_from(KNOWN)), draw(st.sampled_from((1, 2, 3, 4)))
    rows, columns, count = draw(st.integers(1, 60)) * gates, draw(st.integers(1, 150)), draw(st.integers(1, 40))
    weight = matrix(rows, columns, draw(st.floats(0, 1)), draw(st.booleans()))
    bias = torch.randn(rows) if draw(st.booleans()) else None
    wide = torch.randn(count, columns + 5)
    x = wide[:, 2 : 2 + columns]
    got = product(layout, weight, x, gates, bias)
    want = x.double() @ weight.double().t() + (1.0 if bias is None else bias.double())
    assert ((got - want).abs() <= bound(layout, weight, x) + 1e-5 * max(1.0, float(want.abs().max()))).all()
    alone = torch.cat([product(layout, weight, row.unsqueeze(0), gates, bias) for row in x])
    assert torch.equal(got, alone)


@pytest.mark.parametrize("layout", KNOWN)
def test_rows_of_nan_stay_alone_and_are_not_lost(layout: str) -> None:
    torch.manual_seed(1)
    weight = matrix(50, 70, 0.2, False)
    weight[:, 3] = 1.0
    x = torch.randn(21, 70)
    clean = product(layout, weight, x, 1, None)
    for bad in (float("nan"), float("inf")):
        broken = x.clone()
        broken[9, 3] = bad
        got = product(layout, weight, broken, 1, None)
        assert torch.equal(torch.cat([got[:9], got[10:]]), torch.cat([clean[:9], clean[10:]]))
        assert not got[9].isfinite().any()


def test_the_cheapest_layout_is_chosen() -> None:
    torch.manual_seed(2)
    rows, where = unit_rows(512, 1, (0,), 1)
    arrangement = Arrangement(rows, where, None, 512)

    def layout(weight: Tensor, inputs: int) -> str:
        return costs.choose(costs.count(weight, arrangement), inputs, costs=costs.Costs()).layout

    assert layout(torch.randn(512, 512), 1) == layout(torch.randn(512, 512), 100) == "panel"
    assert layout(matrix(512, 512, 0.1, True), 1) == layout(matrix(512, 512, 0.1, True), 10) == "blocks"
    assert layout(matrix(512, 512, 0.02, False), 10) == "rows"
    assert layout(matrix(512, 512, 0.6, False), 10) == "panel"
    if processor().permute:
        assert layout(matrix(512, 512, 0.05, False), 1) == "permuted"
    assert costs.count(torch.zeros(512, 512), arrangement).block_rows == 0
    if processor().expand:
        # Of a matrix larger than the caches, half empty, the bytes decide; of a small one the arithmetic.
        for rows, columns, best in ((6000, 3000, "bitmask"), (256, 256, "panel")):
            numbers, where = unit_rows(rows, 1, (0,), 1)
            half = costs.count(torch.rand(rows, columns) < 0.5, Arrangement(numbers, where, None, numbers.numel()))
            assert costs.choose(half, 1, costs=costs.Costs()).layout == best


ROUND = """
import sys; sys.path.insert(0, {tests!r})
import test_runtime_products as t, torch
from sparsernn.runtime.pack import WIDTH
assert WIDTH == {width}
for layout in t.KNOWN:
    for gates, rows, columns, count in ((1, 37, 50, 11), (4, 24, 19, 1), (3, 9, 70, 30)):
        w, x = t.matrix(gates * rows, columns, 0.3, False), torch.randn(count, columns)
        got = t.product(layout, w, x, gates, None)
        off = (got - (x.double() @ w.double().t() + 1)).abs()
        assert (off <= t.bound(layout, w, x) + 1e-4).all(), layout
from sparsernn import accelerate
for cls in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
    m = cls(9, 21, 2, bidirectional=True).eval()
    x = torch.randn(5, 3, 9)
    assert torch.allclose(accelerate(m)(x)[0], m(x)[0], atol=1e-5)
print("agreed")
"""


@pytest.mark.parametrize("width", (4, 8))
def test_narrower_vectors(width: int) -> None:
    if width >= processor().width:
        pytest.skip("this processor's own width")
    code = ROUND.format(tests=os.path.dirname(__file__), width=width).replace(
        "from sparsernn import accelerate", "from sparsernn.runtime.layers import accelerate"
    )
    environment = {**os.environ, "SPARSERNN_VECTOR_WIDTH": str(width), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agreed", done.stderr


@pytest.mark.parametrize("layout", [name for name in KNOWN if LAYOUTS[name].surest])
def test_panels_take_any_number_of_rows_and_blocks_with_the_bits_of_each_row_alone(layout: str) -> None:
    """Tiles of one to six rows, several panels at once, and what is left over of both."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(21, 13, generator=generator)
    for blocks in (1, 2, 3, 4, 5, 7, 8, 9, 12):
        weight = torch.randn(blocks * WIDTH - 1, 13, generator=generator)
        bias = torch.randn(len(weight), generator=generator)
        for start in (bias, None):
            alone = torch.cat([product(layout, weight, row.unsqueeze(0), 1, start) for row in x])
            want = x.double() @ weight.double().t() + (1.0 if start is None else start.double())
            assert ((alone - want).abs() <= bound(layout, weight, x) + 1e-4).all()
            for count in (2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 21):
                assert torch.equal(product(layout, weight, x[:count], 1, start), alone[:count])
