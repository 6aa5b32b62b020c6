"""The recurrent highway network against the paper's equations, step by step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import sparsernn as srn
from sparsernn.nn import RHN, RaggedState
from sparsernn.structure.cells import recurrent_layers


def oracle(
    net: RHN, x_TI: Tensor, s_H: Tensor, end: str, keep_I: Any = 1.0, keep_H: Any = 1.0
) -> tuple[Tensor, Tensor]:
    """One sequence, one layer and direction: equations 6 to 9 of arXiv 1607.03474, matrix by matrix."""
    outputs = []
    width = len(s_H)
    p = {name: value for name, value in net.named_parameters() if name.endswith(end)}
    for x_I in x_TI:
        for d in range(net.depth):
            r_h, r_t = p[f"weight_hh_d{d}{end}"].split(width)
            b_h, b_t = p[f"bias_d{d}{end}"].split(width) if net.bias else (0.0, 0.0)
            w_h, w_t = p["weight_ih" + end].split(width)
            seen = s_H * keep_H
            h = torch.tanh((w_h @ (x_I * keep_I) if d == 0 else 0.0) + r_h @ seen + b_h)
            t = torch.sigmoid((w_t @ (x_I * keep_I) if d == 0 else 0.0) + r_t @ seen + b_t)
            carry = 1 - t
            s_H = h * t + s_H * carry
        outputs.append(s_H)
    return torch.stack(outputs), s_H


def whole(net: RHN, x_TI: Tensor, first: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions on one sequence."""
    last, states = [], iter(first)
    for ends in net.suffixes():
        parts = []
        for reverse, end in enumerate(ends):
            y, s = oracle(net, x_TI.flip(0) if reverse else x_TI, next(states), end)
            parts.append(y.flip(0) if reverse else y)
            last.append(s)
        x_TI = torch.cat(parts, -1)
    return x_TI, last


def off(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).detach().abs().max().item()


OPTIONS = list(itertools.product((1, 3), (1, 2), (False, True), (False, True), (False, True)))


@pytest.mark.smoke
@pytest.mark.parametrize("depth, layers, both, first, bias", OPTIONS)
def test_is_the_papers_equations(depth: int, layers: int, both: bool, first: bool, bias: bool) -> None:
    torch.manual_seed(depth + layers)
    net = RHN(4, 5, depth, layers, bidirectional=both, batch_first=first, bias=bias, dtype=torch.float64)
    x, rows = torch.randn(3, 6, 4, dtype=torch.float64), layers * (1 + both)
    given = torch.randn(rows, 3, 5, dtype=torch.float64)
    for state in (None, given):
        y, h_n = net(x if first else x.transpose(0, 1), state)
        y = y if first else y.transpose(0, 1)
        assert h_n.shape == (rows, 3, 5)
        for b in range(3):
            want, last = whole(net, x[b], list(given[:, b]) if state is not None else [torch.zeros(5).double()] * rows)
            assert off(y[b], want) < 1e-12 and off(h_n[:, b], torch.stack(last)) < 1e-12
    alone, h_alone = net(x[0], given[:, 0])
    assert off(alone, (net(x[:1] if first else x[:1].transpose(0, 1), given[:, :1])[0]).flatten(0, 1)) < 1e-12
    assert h_alone.shape == (rows, 5)


def test_packed_sequences_equal_single_ones() -> None:
    torch.manual_seed(3)
    net = RHN(4, 5, 2, 2, bidirectional=True, dtype=torch.float64)
    lengths, x = [2, 7, 4], torch.randn(7, 3, 4, dtype=torch.float64)
    first = torch.randn(4, 3, 5, dtype=torch.float64)
    y, h_n = net(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False), first)
    assert isinstance(y, PackedSequence)
    padded, _ = pad_packed_sequence(y)
    for b, length in enumerate(lengths):
        want, last = whole(net, x[:length, b], list(first[:, b]))
        assert off(padded[:length, b], want) < 1e-12 and off(h_n[:, b], torch.stack(last)) < 1e-12


def test_gradients() -> None:
    torch.manual_seed(4)
    net = RHN(3, 4, 2, bidirectional=True, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]

    def run(x: Tensor, s: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return torch.func.functional_call(net, dict(zip(names, values)), (x, s))

    inputs = (torch.randn(3, 2, 3).double(), torch.randn(2, 2, 4).double(), *net.parameters())
    assert torch.autograd.gradcheck(run, tuple(i.detach().requires_grad_() for i in inputs))
    lengths = torch.tensor([3, 1])

    def packed(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        y, h = torch.func.functional_call(net, dict(zip(names, values)), (pack_padded_sequence(x, lengths),))
        return y.data, h

    assert torch.autograd.gradcheck(packed, tuple(i.detach().requires_grad_() for i in (inputs[0], *inputs[2:])))


@pytest.mark.parametrize("form", ["padded", "packed", "masked"])
def test_the_gradient_of_its_own_is_that_of_the_plain_loop(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(8)
    net = RHN(3, 4, 3, 2, bidirectional=True, state_dropout=0.4 if form == "masked" else 0.0, dtype=torch.float64)
    x, s = torch.randn(5, 3, 3).double().requires_grad_(), torch.randn(4, 3, 4).double().requires_grad_()
    lengths = torch.tensor([5, 3, 1])
    wanted = (x, s, *net.parameters())

    def gradients(own: bool) -> tuple[Tensor, ...]:
        if not own:
            monkeypatch.setattr("sparsernn.nn.rhn_steps._has_its_own_gradient", lambda *_: False)
        torch.manual_seed(9)
        y, h = net(pack_padded_sequence(x, lengths) if form == "packed" else x, s)
        y = y.data if isinstance(y, PackedSequence) else y
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        return torch.autograd.grad((y * weights).sum() + h.square().sum(), wanted)

    for mine, plain in zip(gradients(True), gradients(False)):
        assert off(mine, plain) < 1e-11


def test_outputs_can_be_changed_in_place_and_transforms_see_the_plain_loop() -> None:
    net = RHN(3, 4, 2, dtype=torch.float64)
    x = torch.randn(4, 2, 3).double()
    y, _ = net(x)
    y.mul_(2).sum().backward()
    first = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    parameters = dict(net.named_parameters())

    def loss(values: dict[str, Tensor]) -> Tensor:
        return 2 * torch.func.functional_call(net, values, (x,))[0].sum()

    found = torch.func.grad(loss)({name: p.detach() for name, p in parameters.items()})
    assert all(off(a, b) < 1e-11 for a, b in zip(first, found.values()))
    net.requires_grad_(False)
    assert not net(x)[0].requires_grad


def test_every_depth_has_its_own_gates() -> None:
    net = RHN(3, 4, 2, 2)
    layers = recurrent_layers(net)
    assert [layer.name for layer in layers] == ["l0", "l1"]
    assert layers[0].gates == ("h0", "t0", "h1", "t1") and layers[0].input_size == 3 and layers[1].hidden_size == 4
    found = {(r.gate, r.parameter, r.start) for r in layers[0].rows}
    assert ("t0", "weight_ih_l0", 4) in found and ("h1", "weight_hh_d1_l0", 0) in found
    assert not any(r.parameter == "weight_ih_l0" and r.gate == "h1" for r in layers[0].rows)
    assert layers[0].matrices() == ("weight_ih_l0", "weight_hh_d0_l0", "weight_hh_d1_l0")
    with torch.no_grad():
        net.weight_hh_d1_l0[4] = 0
        net.weight_ih_l0[5], net.weight_hh_d0_l0[5] = 0, 0
    model = nn.ModuleDict({"rnn": net})

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = model["rnn"], nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    whole_model = Model().eval()
    structure = srn.trace(whole_model, torch.randn(3, 1, 3))
    assert structure.notes == ()  # a declared cell that meets its own results is no stranger
    constant = structure.constant_gates(dict(whole_model.named_parameters()))["rnn.l0"]
    alive = {gate: mask.nonzero().flatten().tolist() for gate, mask in constant.items()}
    assert alive == {"h0": [], "t0": [1], "h1": [], "t1": [0]}


def test_transform_gates_begin_closed() -> None:
    net = RHN(3, 4, 2, transform_bias=-1.5)
    for d in range(2):
        h, t = getattr(net, f"bias_d{d}_l0").detach().split(4)
        assert h.tolist() == [0.0] * 4 and t.tolist() == [-1.5] * 4
    assert net.weight_hh_d1_l0.detach().abs().max().item() <= 0.5
    shut = RHN(3, 4, 2, transform_bias=-50.0, dtype=torch.float64)
    s = torch.randn(1, 2, 4, dtype=torch.float64)
    assert off(shut(torch.randn(5, 2, 3, dtype=torch.float64), s)[1], s) < 1e-12  # the state is carried on


def test_dropout_masks_are_those_of_the_oracle_for_all_steps_and_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    net = RHN(4, 5, 3, input_dropout=0.5, state_dropout=0.25, dtype=torch.float64)
    drawn: list[Tensor] = []
    plain = F.dropout

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        drawn.append(plain(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(F, "dropout", watched)
    x, lengths = torch.randn(6, 3, 4, dtype=torch.float64), [6, 4, 1]
    packed = pack_padded_sequence(x, torch.tensor(lengths))
    for given in (x, packed):
        drawn.clear()
        y, _ = net(given)
        keep_I, keep_H = drawn
        assert set(keep_I.unique().tolist()) <= {0.0, 2.0} and set(keep_H.unique().tolist()) <= {0.0, 4 / 3}
        y = pad_packed_sequence(y)[0] if given is packed else y
        for b, length in enumerate(lengths if given is packed else [6] * 3):
            want, _ = oracle(net, x[:length, b], torch.zeros(5).double(), "_l0", keep_I[b], keep_H[b])
            assert off(y[:length, b], want) < 1e-12
    assert not torch.equal(net(x)[0], net(x)[0])
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"num_layers": 2}, {"bias": False}])
def test_widths_of_their_own(options: dict[str, Any]) -> None:
    sizes: Any = [[3, 5]] if options.get("bidirectional") else [3, 5] if "num_layers" in options else [4]
    net = RHN(2, sizes, 2, **options, dtype=torch.float64)
    y, h_n = net(torch.randn(4, 3, 2, dtype=torch.float64))
    assert y.shape[-1] == (8 if options.get("bidirectional") else sizes[-1])
    assert isinstance(h_n, RaggedState) == (len(sizes[0]) > 1 if isinstance(sizes[0], list) else len(sizes) > 1)
    zeros = [torch.zeros(w).double() for row in net.hidden_sizes for w in row]
    want, last = whole(net, torch.ones(4, 2).double(), zeros)
    y, h_n = net(torch.ones(4, 1, 2).double())
    assert off(y[:, 0], want) < 1e-12 and all(off(h[0], s) < 1e-12 for h, s in zip(h_n, last))
    again, _ = net(torch.ones(4, 1, 2).double(), h_n)
    assert off(again[:, 0], whole(net, torch.ones(4, 2).double(), last)[0]) < 1e-12
