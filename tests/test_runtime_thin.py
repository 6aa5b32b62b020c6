"""Matrices of two thin factors on compiled kernels: two products, as near to float64 as torch's."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import sparsernn as srn
from runtime_checks import forced
from sparsernn.nn import FactorisedGRU, FactorisedLinear, FactorisedLSTM, FactorisedRNN, RaggedState
from sparsernn.nn.packing import packing_of
from sparsernn.runtime.bounds import error_bound
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layouts import offered
from sparsernn.runtime.pack import WIDTH
from sparsernn.runtime.processor import processor
from sparsernn.structure.grids import integers

pytestmark = pytest.mark.filterwarnings("ignore:.*no AVX-512 VNNI", "ignore:LSTM with projections")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
HIDDEN = 2 * WIDTH + 5
RANKS = (1, 3, WIDTH, WIDTH + 3)

STACKS: dict[str, Any] = {
    "lstm": lambda: FactorisedLSTM(10, [HIDDEN, 12], [[(1, WIDTH + 3)], [(0, 3)]]),
    "both ways": lambda: FactorisedLSTM(10, [[HIDDEN, 9]], [[(3, 4), (1, 0)]], bidirectional=True, batch_first=True),
    "projected": lambda: FactorisedLSTM(10, [HIDDEN], [[(3, 4)]], proj_sizes=[7]),
    "gru": lambda: FactorisedGRU(10, [HIDDEN], [[(7, WIDTH)]]),
    "tanh": lambda: FactorisedRNN(10, [HIDDEN, 9], [[(0, 5)], [(8, 0)]], bias=False),
    "relu": lambda: FactorisedRNN(10, [HIDDEN], [[(2, 3)]], nonlinearity="relu"),
}


class Net(nn.Module):
    def __init__(self, rnn: Any, outputs: int = 11) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = FactorisedLinear(sum(rnn.output_widths(rnn.num_layers - 1)), outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def net(kind: str, density: float = 1.0) -> Net:
    torch.manual_seed(3)
    model = Net(STACKS[kind]()).eval().requires_grad_(False)
    for p in model.parameters() if density < 1 else ():
        if p.dim() == 2:
            p *= torch.rand(-(-p.shape[0] // 16), p.shape[1]).repeat_interleave(16, 0)[: len(p)] < density
    return model


def off(found: Any, exact: Any) -> float:
    """The largest difference of outputs and states."""
    if isinstance(found, Tensor):
        return float((found - exact).abs().max())
    return max(off(a, b) for a, b in zip(found, exact) if a is not None)


def in_float64(value: Any) -> Any:
    if isinstance(value, tuple) and not isinstance(value, PackedSequence):
        return tuple(map(in_float64, value))
    return RaggedState([row.double() for row in value]) if isinstance(value, RaggedState) else value.to(torch.float64)


@torch.no_grad()
def near(fast: nn.Module, model: nn.Module, *inputs: Any) -> None:
    """Of float32 kernels, by the same model in float64."""
    exact = copy.deepcopy(model).double()(*map(in_float64, inputs))
    assert off(fast(*inputs), exact) <= max(1e-5, 4 * off(model(*inputs), exact))


@pytest.mark.parametrize("kind", STACKS)
def test_same_function(kind: str) -> None:
    rnn = net(kind).rnn
    fast = accelerate(rnn)
    assert isinstance(fast, type(rnn)) and set(dict(fast.named_parameters())) == set(packing_of(rnn).shapes)
    for shape in ((1, 1), (5, 3), (4, 70), (70, 4)):
        near(fast, rnn, torch.randn(*shape, 10))
    near(fast, rnn, torch.randn(6, 10))
    near(fast, rnn, pack_padded_sequence(torch.randn(4, 3, 10), torch.tensor([2, 4, 1]), enforce_sorted=False))
    x = torch.randn(3, 3, 10)
    states = rnn(x)[1]
    near(fast, rnn, x, tuple(states) if type(states) is tuple else states)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("outputs", [WIDTH + 5, 3 * WIDTH])
def test_linear_layers_of_every_rank(rank: int, outputs: int) -> None:
    torch.manual_seed(0)
    rank = min(rank, outputs)
    for bias in (True, False):
        linear = FactorisedLinear(2 * WIDTH + 1, outputs, rank, bias).eval()
        model = nn.Sequential(nn.GRU(5, 2 * WIDTH + 1)).eval()
        fast = accelerate(nn.ModuleList([model, linear]).eval())[1]
        assert isinstance(fast, FactorisedLinear) and type(fast) is not FactorisedLinear
        for shape in ((1,), (1, 1), (130,), (3, 70), ()):
            near(fast, linear, torch.randn(*shape, 2 * WIDTH + 1))
        near(fast, linear, torch.randn(2 * WIDTH + 1, 9).T)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_every_layout_of_pruned_factors_is_the_product_of_the_rounded_ones(kind: str, precision: Precision) -> None:
    """The oracle: each factor rounded by itself, in float64. Int8 products round their inputs as well: a 127th."""
    model = net(kind, 0.4)
    rounded = with_rounded_factors(model, precision)
    x = torch.randn(4, 3, 10)
    tolerance = 0.03 if precision == "int8" and processor().vnni else 1e-5
    for layout in (None, *offered(precision)):
        with forced(layout), torch.no_grad():
            fast = accelerate(model, precision)
            want = rounded.double()(x.double())
            assert off(fast(x), want) <= tolerance
            stream = fast.stream(3)
            steps = torch.stack([stream.step(each).clone() for each in x])
        assert off(steps, want) <= tolerance


def with_rounded_factors(model: nn.Module, precision: Precision) -> nn.Module:
    found = copy.deepcopy(model)
    for p in found.parameters():
        if p.dim() == 2 and precision == "bfloat16":
            p.copy_(p.bfloat16())
        elif p.dim() == 2 and precision == "int8":
            numbers, scales = integers(p)
            p.copy_(numbers.float() * scales[:, None])
    return found


@pytest.mark.parametrize("kind", [kind for kind in STACKS if kind != "both ways"])
def test_streams_are_whole_calls(kind: str) -> None:
    model = net(kind)
    x = torch.randn(6, 2, 10)
    for first, data in ((None, x), (nn.Linear(4, 10), torch.randn(6, 2, 4)), (nn.Embedding(9, 10), x[..., 0] > 0)):
        whole = model if first is None else nn.Sequential(first, model).eval().requires_grad_(False)
        data = data.long() if data.dtype == torch.bool else data
        fast = accelerate(whole)
        stream = fast.stream(2)
        assert isinstance(stream, srn.runtime.stream.Stream)
        steps = torch.stack([stream.step(each).clone() for each in data])
        assert torch.allclose(steps, fast(data), atol=1e-6) and torch.allclose(steps, whole(data), atol=1e-5)


def test_an_embedding_before_a_thin_linear_layer_is_a_table() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 10), FactorisedLinear(10, 12, 4), nn.Tanh(), FactorisedGRU(12, [9], [[(0, 4)]])
    )
    model = model.eval().requires_grad_(False)
    tokens = torch.randint(9, (7, 2))
    stream = accelerate(model).stream(2)
    steps = torch.stack([stream.step(each).clone() for each in tokens])
    assert torch.allclose(steps, model(tokens)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_delta_streams_skip_columns_of_the_inner_factor(kind: str) -> None:
    model = net(kind)
    fast, x = accelerate(model), torch.randn(9, 1, 10).cumsum(0) / 9
    plain, none, some = fast.stream(), fast.stream(delta=0.0), fast.stream(delta=0.2)
    for each in x:
        want = plain.step(each)
        assert torch.allclose(none.step(each), want, atol=1e-5)
        got = some.step(each)
    assert 0 < float((got - want).abs().max()) < 0.5
    assert some.read.columns < 0.9 and none.read.plain == plain.read.plain
    before = some.state
    some.step(x[0])
    some.state = before
    assert off(some.state, before) == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_held_once_copies_pickles_and_files_give_the_same_bits(precision: Precision, tmp_path: Path) -> None:
    model = net("lstm", 0.5)
    x = torch.randn(5, 2, 10)
    fast, once = accelerate(model, precision), accelerate(model, precision, keep_weights=False)
    want = fast(x)
    assert torch.equal(once(x), want)
    rounded = with_rounded_factors(model, precision).state_dict()
    for name, value in once.state_dict().items():
        assert off(value, rounded[name]) == 0 and (
            value.dim() == 1 or type(once.get_parameter(name)) is not nn.Parameter
        )
    srn.save(fast, tmp_path / "fast")
    loaded = srn.load(net("lstm"), tmp_path / "fast")
    srn.save(loaded, tmp_path / "again")
    assert (tmp_path / "fast").stat().st_size == (tmp_path / "again").stat().st_size
    others = [
        loaded,
        copy.deepcopy(fast),
        copy.deepcopy(once),
        pickle.loads(pickle.dumps(once)),
        srn.load(net("lstm"), tmp_path / "again"),
    ]
    for other in others:
        assert torch.equal(other(x), want) and other.explain() == fast.explain()
        assert isinstance(other.rnn, FactorisedLSTM) and isinstance(other.head, FactorisedLinear)
    assert once.load_state_dict(model.state_dict()) and torch.equal(once(x), want)


def test_a_file_is_as_small_as_the_factors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net(FactorisedLSTM(64, [64], [[(8, 8)]])).eval()
    srn.save(accelerate(model, "int8"), tmp_path / "thin")
    srn.save(accelerate(Net(srn.nn.RaggedLSTM(64, [64])).eval(), "int8"), tmp_path / "whole")
    assert (tmp_path / "thin").stat().st_size < 0.5 * (tmp_path / "whole").stat().st_size


def test_units_are_re_sorted_by_the_outer_factor() -> None:
    """Where each unit has weights in columns of its own kind, blocks become full or empty."""
    torch.manual_seed(0)
    hidden, rank = 16 * WIDTH, 32
    model = FactorisedGRU(24, [hidden], [[(0, rank)]]).eval().requires_grad_(False)
    kinds = torch.randint(4, (hidden,))
    model.weight_hh_out_l0 *= (kinds[:, None] == torch.arange(rank) // 8).repeat(3, 1)
    model.weight_ih_l0 *= (kinds[:, None] == torch.arange(24) // 6).repeat(3, 1)
    fast, x = accelerate(model), torch.randn(5, 2, 24)
    near(fast, model, x)
    assert "units re-sorted" in fast.explain()
    near(fast, model, x, torch.randn(1, 2, hidden))


def test_explain_names_both_factors_and_changes_are_seen() -> None:
    model = net("gru")
    fast, x = accelerate(model), torch.randn(3, 2, 10)
    lines = fast.explain().splitlines()
    assert lines[1].count("dense panel before dense panel") == 2 and "dense panel before dense panel" in lines[3]
    fast(x)
    with torch.no_grad():
        for rnn, head in ((model.rnn, model.head), (fast.rnn, fast.head)):
            rnn.weight_hh_in_l0[0] += 1
            head.weight_out[1] -= 1
    near(fast, model, x)
    with torch.no_grad():
        model.rnn.weight_hh_out_l0[0, 0] = fast.rnn.weight_hh_out_l0[0, 0] = torch.inf
    assert torch.equal(fast(x).isnan(), model(x).isnan())


def test_each_layer_gets_a_precision_of_its_own() -> None:
    model = net("lstm")
    x = torch.randn(5, 2, 10)
    fast = accelerate(model, {"rnn.l1": "bfloat16", "head": "int8"})
    assert torch.allclose(fast(x), model(x), atol=0.02) and not torch.equal(fast(x), accelerate(model)(x))
    chosen = accelerate(model, "auto", batches=[x], tolerance=0.05)
    assert float((chosen(x) - model(x)).norm() / model(x).norm()) <= 0.05


def test_the_error_bound_goes_through_both_factors() -> None:
    model = net("gru")
    for precision in PRECISIONS[1:]:
        fast = accelerate(model, precision)
        bound = error_bound(fast, torch.randn(4, 2, 10))
        for scale in (0.1, 1.0, 100.0):
            x = scale * torch.randn(20, 9, 10)
            assert bound is not None and float((fast(x) - model(x)).abs().max()) <= bound
    dense_head = nn.Sequential(model.head).eval()
    fast = accelerate(nn.Sequential(nn.GRU(4, 21), First(), dense_head).eval(), "bfloat16")
    assert error_bound(fast, torch.randn(4, 2, 4)) is None  # no chain


class First(nn.Module):
    def forward(self, x: Any) -> Tensor:
        return x[0]


def test_in_c_both_factors_are_multiplied_with(tmp_path: Path) -> None:
    for kind in ("lstm", "gru", "projected", "relu"):
        model = net(kind)
        thin = sum(p.numel() for p in model.parameters() if p.dim() == 2)
        for precision in ("float32", "int8"):
            report = srn.export_c(model, tmp_path, example=torch.randn(5, 1, 10), precision=precision)
            assert thin <= report["multiply_adds"] < 1.2 * thin + 200


@pytest.mark.parametrize("width", [width for width in (4, 8) if width < processor().width])
def test_on_narrower_vectors(width: int) -> None:
    environment = {**os.environ, "SPARSERNN_VECTOR_WIDTH": str(width), "OMP_NUM_THREADS": "1"}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_runtime_thin as t\n"
    code += "for kind in t.STACKS: t.test_same_function(kind)\n"
    code += "for rank in t.RANKS: t.test_linear_layers_of_every_rank(rank, t.WIDTH + 5)\n"
    code += "t.test_every_layout_of_pruned_factors_is_the_product_of_the_rounded_ones('lstm', 'bfloat16')\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
