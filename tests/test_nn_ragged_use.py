"""Ragged stacks in use: states by index and handed back, copies and keys, and what needs one width."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN, RaggedState
from sparsernn.structure.cells import recurrent_layers

RAGGED = {"LSTM": RaggedLSTM, "GRU": RaggedGRU, "RNN": RaggedRNN}


def test_state_comes_back_as_initial_state_in_every_form():
    torch.manual_seed(0)
    ragged = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True, dtype=torch.float64)
    x = torch.randn(8, 2, 3, dtype=torch.float64)
    _, (h, c) = ragged(x)
    assert isinstance(h, RaggedState)
    want = ragged(x, (h, c))[0]
    assert torch.equal(ragged(x, (list(h), tuple(c)))[0], want)
    assert torch.equal(ragged(x, [h.detach(), c.to(torch.float64)])[0], want)


def test_module_copies_pickles_and_keeps_torchs_keys():
    torch.manual_seed(0)
    ragged = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True, proj_sizes=[(2, 1), (1, 6)], dtype=torch.float64)
    keys = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).state_dict().keys()
    assert ragged.state_dict().keys() == keys
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    want = ragged(x)[0]
    assert torch.equal(copy.deepcopy(ragged)(x)[0], want)
    file = io.BytesIO()
    torch.save(ragged, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x)[0], want)
    other = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True, proj_sizes=[(2, 1), (1, 6)], dtype=torch.float64)
    other.load_state_dict(ragged.state_dict())
    assert torch.equal(other(x)[0], want)
    called = torch.func.functional_call(other, {k: torch.zeros_like(v) for k, v in ragged.state_dict().items()}, (x,))
    assert not called[0].any()
    assert "[[4, 2], [3, 5]]" in repr(ragged)
    ragged.flatten_parameters()


def test_registry_lists_layers_with_their_own_widths():
    ragged = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True)
    found = recurrent_layers(nn.ModuleDict({"rnn": ragged}))
    assert [(f.name, f.hidden_size, f.input_size) for f in found] == [
        ("rnn.l0", 4, 3),
        ("rnn.l0_reverse", 2, 3),
        ("rnn.l1", 3, 6),
        ("rnn.l1_reverse", 5, 6),
    ]


def test_state_is_indexed_as_users_do():
    rows = [torch.randn(2, w) for w in (4, 2, 3, 3)]
    h = RaggedState(rows)
    assert len(h) == 4 and h.dim() == 3 and h.size(1) == 2 and h.size(-2) == 2
    assert torch.equal(h[-1], rows[3]) and torch.equal(h[0], rows[0]) and torch.equal(h[1, :, :], rows[1])
    assert torch.equal(h[-1, 0], rows[3][0])
    assert torch.equal(torch.cat((h[-2], h[-1]), dim=1), torch.cat(rows[2:], 1))
    assert isinstance(h[-2:], Tensor) and torch.equal(h[-2:], torch.stack(rows[2:]))
    assert isinstance(h[:2], RaggedState) and h[:2].widths == (4, 2)
    assert h[:, 1:].rows[0].shape == (1, 4)
    assert torch.equal(h.view(2, 2, 2, -1)[-1], torch.stack(rows[2:]))
    assert torch.equal(h.view(2, 2, 2, 4)[0, 1], rows[1])
    assert torch.equal(h.view(-1, 2, 2, 4)[-1][0], rows[2])
    assert [r.shape[-1] for r in h] == [4, 2, 3, 3]
    picked = h.index_select(1, torch.tensor([1, 0, 1]))
    assert torch.equal(picked[0], rows[0][[1, 0, 1]])
    for repeated in (h.repeat_interleave(3, dim=1), torch.repeat_interleave(h, 3, dim=-2)):
        assert all(torch.equal(mine, row.repeat_interleave(3, 0)) for mine, row in zip(repeated, rows))
    assert all(torch.equal(mine, row.repeat(2, 1)) for mine, row in zip(h.repeat(1, 2, 1), rows))
    keep = torch.tensor([[[1.0], [0.0]]])
    for reset in (h * keep, keep * h, h * keep[0], torch.mul(h, keep)):
        assert all(torch.equal(mine, row * keep[0]) for mine, row in zip(reset, rows))
    assert torch.equal((0.5 * h)[2], 0.5 * rows[2])
    assert h.to(torch.float64).dtype == torch.float64 and not h.detach().requires_grad
    assert copy.deepcopy(h).widths == h.widths


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(
    "use",
    [
        lambda h: h.sum(),
        lambda h: h.shape,
        lambda h: torch.sum(h),
        lambda h: torch.cat((h, h)),
        lambda h: torch.ones(2) + h,
        lambda h: h.view(2, -1),
        lambda h: h.view(2, 2, 2, 3),
        lambda h: h[:, :, 0],
        lambda h: h[None],
        lambda h: h[..., 0],
        lambda h: h[torch.tensor([0, 1])],
        lambda h: h.size(2),
        lambda h: h.index_select(0, torch.tensor([0])),
        lambda h: h.repeat_interleave(2, 0),
        lambda h: h.repeat(2, 1, 1),
        lambda h: h * torch.ones(4, 2, 4),
        lambda h: torch.ones(2, 4) * h,
        lambda h: h * h,
    ],
)
def test_what_needs_one_width_is_refused_in_a_sentence(use):
    h = RaggedState([torch.randn(2, w) for w in (4, 2, 3, 3)])
    with pytest.raises((TypeError, AttributeError)) as error:
        use(h)
    assert "widths [4, 2, 3, 3]" in str(error.value) and len(str(error.value).splitlines()) <= 3


@pytest.mark.counts("misuses", 1)
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m(torch.zeros(5, 2, 4)), RuntimeError, "Expected 3, got 4"),
        (lambda m: m(torch.zeros(5)), ValueError, "2D or 3D"),
        (lambda m: m(torch.zeros(5, 2, 3).double()), ValueError, "Convert input"),
        (lambda m: m(torch.zeros(5, 2, 3), torch.zeros(2, 2, 4)), RuntimeError, "pair"),
        (lambda m: m(torch.zeros(5, 2, 3), (torch.zeros(2, 2, 4),) * 2), RuntimeError, "Expected h_0"),
        (lambda m: m(torch.zeros(5, 2, 3), (None, None)), RuntimeError, "expected a tensor"),
        (lambda m: m.hidden_size, AttributeError, "no one hidden_size"),
        (lambda m: RaggedLSTM(3, [(1, 2)]), ValueError, r"hidden_sizes\[0\]"),
        (lambda m: RaggedLSTM(3, [2, 0]), ValueError, r"hidden_sizes\[1\]"),
        (lambda m: RaggedLSTM(3, []), ValueError, "empty"),
        (lambda m: RaggedLSTM(0, [2]), ValueError, "input_size"),
        (lambda m: RaggedLSTM(3, [2], dropout=2.0), ValueError, "dropout"),
        (lambda m: RaggedLSTM(3, [2, 2], proj_sizes=[1]), ValueError, "proj_sizes"),
        (lambda m: RaggedGRU(3, [2], proj_sizes=[1]), ValueError, "only an LSTM"),
        (lambda m: RaggedRNN(3, [2], nonlinearity="sine"), ValueError, "nonlinearity"),
    ],
)
def test_bad_input_gets_a_sentence(call, error, words):
    module = RaggedLSTM(3, [4, 2])
    with pytest.raises(error, match=words) as caught:
        call(module)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.skipif(
    "AVX512" not in torch.backends.cpu.get_cpu_capability(), reason="torch's LSTM under autocast needs AVX-512"
)
def test_autocast_runs_in_bfloat16():
    ragged = RaggedLSTM(3, [(4, 2), (3, 5)], bidirectional=True)
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = ragged(x)
    torch.testing.assert_close(y.float(), ragged(x)[0], rtol=0, atol=0.05)
