"""The recurrent highway network through the whole package: the papers' sizes, pruned, saved, shown and copied."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsernn as srn
from sparsernn.nn import RHN
from sparsernn.surgery.checkpoint import CheckpointError


def off(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).detach().abs().max().item()


# Table 2 of arXiv 1709.05027: units and parameters in millions, embedding of 10,000 words tied to the output layer.
TABLE_2 = {830: 23.48, 726: 18.88, 517: 11.07, 403: 7.62, 328: 5.66}


class Tied(nn.Module):
    def __init__(self, words: int, width: int, depth: int, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, device=options.get("device"))
        self.rnn = RHN(width, width, depth, **options)
        self.head = nn.Linear(width, words, device=options.get("device"))
        self.head.weight = self.embedding.weight

    def forward(self, x_TB: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(x_TB))[0])


@pytest.mark.parametrize("width, millions", TABLE_2.items())
def test_parameters_of_table_2(width: int, millions: float) -> None:
    model = Tied(10_000, width, 10, device="meta")
    count = sum(p.numel() for p in model.parameters())
    assert count == 10_000 * width + 10_000 + 2 * (2 * width**2 + width) + 18 * (width**2 + width)
    assert round(count / 1e6, 2) == millions


def test_a_group_of_the_papers_network_has_46520_weights() -> None:
    """Group sizes are linear in each width, so those of a small network, scaled, are the published one's."""
    words, width, depth = 50, 8, 10
    model = Tied(words, width, depth).eval()
    groups = srn.trace(model, torch.randint(words, (3, 2))).groups("unit")
    assert groups.count == width
    sizes = {words + 2 * (width * 2 + 2 * width) + 18 * 2 * width}
    assert set(groups.sizes(dict(model.named_parameters())).tolist()) == sizes
    assert 10_000 + 2 * (830 * 2 + 2 * 830) + 18 * 2 * 830 == 46_520
    # Row k and column k cross in h and t of the input's matrix and of each depth's.
    once = groups.sizes(dict(model.named_parameters()), self_weights="once")
    assert set(once.tolist()) == {sizes.pop() - 2 * (1 + depth)}


def test_units_are_learned_taken_out_and_saved(tmp_path: Any) -> None:
    torch.manual_seed(6)
    model = Tied(12, 10, 2, state_dropout=0.1)
    x = torch.randint(12, (9, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    sparsifier = srn.Shrink(model, x, include="all", to=0.5, steps=12).attach(optimizer)
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(model(x)[:-1].flatten(0, 1), x[1:].flatten()).backward()
        optimizer.step()
    model = sparsifier.finish().double().eval()
    small: Any = srn.compact(model, x)
    assert 1 <= small.rnn.hidden_size == small.rnn.input_size < 10
    assert small.embedding.weight is small.head.weight and type(small.rnn) is RHN
    other = torch.randint(12, (5, 3))
    assert off(small(other), model(other)) <= 1e-10
    srn.save(small, tmp_path / "small.safetensors")
    again: Any = srn.load(Tied(12, 10, 2), tmp_path / "small.safetensors").eval()
    assert torch.equal(again(other), small(other)) and again.rnn.hidden_size == small.rnn.hidden_size
    assert again.embedding.weight is again.head.weight
    dense_state = torch.randn(1, 3, 10, dtype=torch.float64)
    assert (
        small.rnn(torch.randn(2, 3, small.rnn.input_size).double(), dense_state)[0].shape[-1] == small.rnn.hidden_size
    )
    srn.save(small.rnn, tmp_path / "layer.safetensors")
    for other_net, words in (
        (RHN(10, 2, 2), r"modules..hidden_sizes\[0\]\[0\]: got \d, expected a whole number from 1 to 2"),
        (RHN(10, 10, 3), "missing, but the model has it"),
        (RHN(10, 10, 2, 2), "expected 2 lists of 1"),
        (RHN(2, 10, 2), "modules..input_size"),
        (nn.RNN(10, 10), "RHN, but the model has a RNN"),
    ):
        with pytest.raises(CheckpointError, match=words):
            srn.load(other_net, tmp_path / "layer.safetensors")


def test_gates_and_blocks_are_pruned_and_shown() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(RHN(6, 20, 2), _First(), nn.Linear(20, 3))
    x = torch.randn(4, 2, 6)
    for level in ("gate", "block", "weight"):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), 0.0)
        pruner = srn.Prune(twin, x, sparsity=0.5, level=level).attach(optimizer)
        twin(x).sum().backward()
        optimizer.step()
        assert abs(pruner.density() - 0.5) < 0.02
        report = srn.inspect(pruner.finish().eval(), x)
        if level == "gate":
            gates = report.to_dict()["layers"][0]
            assert gates["kind"] == "RHN" and gates["constant_gates"] == 2 * 2 * 20 // 2
            folded = srn.compact(twin.double(), x.double(), gates=True)
            assert off(folded(x.double()), twin(x.double())) <= 1e-10


class _First(nn.Module):
    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0]


def test_the_report_shows_every_depth(tmp_path: Any) -> None:
    model = nn.Sequential(RHN(6, 8, 3), _First(), nn.Linear(8, 3)).eval()
    report = srn.inspect(model, torch.randn(4, 2, 6))
    report.html(tmp_path / "report.html")
    figure = report.plot_weights()
    texts = {text.get_text() for axes in figure.axes for child in axes.child_axes for text in child.texts}
    assert {"h0", "t0", "h2", "t2", "input", "hidden"} <= texts
    gates = report.to_dict()["layers"][0]["matrices"]
    assert [[gate["gate"] for gate in m["gates"]] for m in gates[:3]] == [["h0", "t0"], ["h0", "t0"], ["h1", "t1"]]


def test_half_precision_keeps_the_state() -> None:
    net = RHN(4, 8, 2)
    x = torch.randn(5, 2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h_n = net(x)
    assert y.dtype == h_n.dtype == torch.float32
    assert off(y.detach(), net(x)[0].detach()) < 0.05


def test_copies_keep_their_sizes() -> None:
    net = RHN(4, 8, 2, input_dropout=0.1)
    twin = copy.deepcopy(net).eval()
    assert "depth=2" in repr(net) and "input_dropout=0.1" in repr(net)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 4)
    assert torch.equal(twin(x)[0], net.eval()(x)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_has_no_such_node_and_says_so(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="Python loops over time") as caught:
        srn.export_onnx(Tied(9, 5, 2).eval(), tmp_path / "m.onnx", torch.randint(9, (4, 2)))
    assert len(str(caught.value).splitlines()) <= 3 and not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((0, 4, 2), {}, "input_size is 0"),
        ((3, 0, 2), {}, "hidden_sizes"),
        ((3, 4, 0), {}, "depth is 0"),
        ((3, 4, True), {}, "depth is True"),
        ((3, 4, 2), {"num_layers": 0}, "num_layers is 0"),
        ((3, [4, 5, 6], 2), {"num_layers": 2}, "expected one for each of 2 layers"),
        ((3, 4, 2), {"state_dropout": 1.0}, "state_dropout is 1.0"),
        ((3, 4, 2), {"input_dropout": "much"}, "input_dropout is 'much'"),
    ],
)
def test_bad_sizes_get_a_sentence(arguments: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        RHN(*arguments, **options)
    assert len(str(caught.value).splitlines()) <= 3


def test_bad_inputs_get_a_sentence() -> None:
    net = RHN(3, 4, 2)
    for x, s, words in (
        (torch.zeros(2, 1, 5), None, "input_size. Expected 3, got 5"),
        (torch.zeros(2, 1, 3).double(), None, "Convert input"),
        (torch.zeros(0, 1, 3), None, "larger than 0"),
        (torch.zeros(2, 1, 3), torch.zeros(1, 1, 5), "Expected h_0"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=words):
            net(x, s)
    assert net(torch.zeros(2, 0, 3))[0].shape == (2, 0, 4)
