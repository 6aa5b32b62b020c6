"""Models that no step program computes, each with an example and the sentence that says why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from program_networks import Function

R, L = torch.randn, nn.Linear
TORCH_2_6 = torch.__version__.startswith("2.6.")  # refuses torch.cond before the recorder sees it
COND = "active mode .* not registered" if TORCH_2_6 else "cond.*is not among the operations"


class Counting(nn.Module):
    """One step that counts in Python, and does something else each thirtieth time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.h, self.t = nn.GRUCell(4, 5), torch.zeros(2, 5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.t += 1
        self.h = self.cell(x, self.h if self.t % 30 else torch.zeros_like(self.h))
        return self.h


def _attention(m: Any, x: Tensor) -> Tensor:
    return (m.l(x) @ x.transpose(1, 2)).softmax(-1) @ x


def _branch(m: Any, x: Tensor) -> Tensor:
    return m.l(x) if float(x.sum()) > 0 else x


def _reversed_loop(m: Any, x: Tensor) -> Tensor:
    h, out = x.new_zeros(x.shape[0], 4), []
    for t in reversed(range(x.shape[1])):
        h = m.g(x[:, t], h)
        out.append(h)
    return torch.stack(out[::-1], 1)


def _squeeze_excite(m: Any, x: Tensor) -> Tensor:
    return x * torch.sigmoid(m.l(x.mean(1, keepdim=True)))


REFUSED: dict[str, tuple[Any, ...]] = {
    "a count in Python": (
        Counting,
        lambda: R(2, 4),
        {},
        "changes t from step to step, in Python.*a tensor in a buffer",
    ),
    "bidirectional": (
        lambda: Function(lambda m, x: m.g(x)[0], g=nn.GRU(4, 5, batch_first=True, bidirectional=True)),
        lambda: R(2, 9, 4),
        {},
        "gru.*is bidirectional: its backward direction needs the whole sequence",
    ),
    "symmetric conv": (
        lambda: Function(lambda m, x: m.c(x.transpose(1, 2)).transpose(1, 2), c=nn.Conv1d(4, 4, 7, padding=3)),
        lambda: R(2, 9, 4),
        {},
        "needs 3 steps of look-ahead.*pass delay=3",
    ),
    "self-attention": (
        lambda: Function(_attention, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "each step with every other one",
    ),
    "branch on a value": (
        lambda: Function(_branch, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "reads a tensor.s value into Python",
    ),
    "squeeze and excite": (
        lambda: Function(_squeeze_excite, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "combines each step with a value of the whole sequence",
    ),
    "softmax over time": (
        lambda: Function(lambda m, x: x.softmax(1)),
        lambda: R(2, 9, 4),
        {},
        "softmax.*compares the steps",
    ),
    "norm over time": (
        lambda: Function(lambda m, x: m.n(x.transpose(1, 2)), n=nn.InstanceNorm1d(4)),
        lambda: R(2, 9, 4),
        {},
        "instance_norm.*normalises over the steps",
    ),
    "group norm over time": (
        lambda: Function(lambda m, x: m.n(x.transpose(1, 2)), n=nn.GroupNorm(2, 4)),
        lambda: R(2, 9, 4),
        {},
        "group_norm.*normalises over the steps",
    ),
    "flipped": (
        lambda: Function(lambda m, x: m.g(x.flip(1))[0], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "flip.*turns round the steps",
    ),
    "a later step": (
        lambda: Function(lambda m, x: m.g(x)[0] + x[:, 3:4, :1], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "needs 3 steps of look-ahead.*pass delay=3",
    ),
    "random": (
        lambda: Function(lambda m, x: m.g(x)[0] + torch.randn(5), g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "random",
    ),
    "upsampling": (
        lambda: Function(lambda m, x: m.c(x.transpose(1, 2)), c=nn.ConvTranspose1d(4, 4, 2, stride=2)),
        lambda: R(2, 9, 4),
        {},
        "several steps for one",
    ),
    "reflected padding": (
        lambda: Function(lambda m, x: F.pad(x.transpose(1, 2), (2, 0), mode="reflect")),
        lambda: R(2, 9, 4),
        {},
        "pad.*reflect",
    ),
    "length as a number": (
        lambda: Function(lambda m, x: m.g(x / x.shape[1])[0], g=nn.GRU(4, 5, batch_first=True)),
        lambda: R(2, 9, 4),
        {},
        "the length of the sequence",
    ),
    "time as features": (
        lambda: Function(lambda m, x: m.l(x.transpose(1, 2)), l=L(24, 4)),
        lambda: R(2, 24, 4),
        {},
        "fails on its example with 24 time steps",
    ),
    "packed": (
        lambda: Function(
            lambda m, x: nn.utils.rnn.pad_packed_sequence(
                m.g(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([x.shape[1]] * len(x)), batch_first=True))[0]
            )[0],
            g=nn.GRU(4, 5, batch_first=True),
        ),
        lambda: R(2, 9, 4),
        {},
        "packs its sequences",
    ),
    "transposed weights of the input": (
        lambda: Function(lambda m, x: m.l(x) @ x.mT, l=L(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "every other|fails",
    ),
    "batch norm over time": (
        lambda: Function(lambda m, x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)),
        lambda: R(2, 9, 4),
        {},
        "of the whole sequence|whole of it",
    ),
    "sorted": (
        lambda: Function(lambda m, x: x.sort(1)[0]),
        lambda: R(2, 9, 4),
        {},
        "sort.*is not among the operations",
    ),
    "reversed loop": (
        lambda: Function(_reversed_loop, g=nn.GRUCell(4, 4)),
        lambda: R(2, 9, 4),
        {},
        "number of the step|loop",
    ),
    "a list as long as the sequence": (
        lambda: Function(lambda m, x: list(x.unbind(1))),
        lambda: R(2, 9, 4),
        {},
        "more parts the longer",
    ),
    "several rates": (
        lambda: Function(
            lambda m, x: x[:, 1::2] + m.c(x.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1] // 2], c=nn.Conv1d(4, 4, 1)
        ),
        lambda: R(2, 8, 4),
        {},
        "different rates",
    ),
    "stft": (
        lambda: Function(
            lambda m, x: torch.stft(x, 8, 4, window=torch.ones(8, dtype=x.dtype), return_complex=True).abs()
        ),
        lambda: R(2, 32),
        {},
        "stft|reflect|complex",
    ),
    "upsampled": (
        lambda: Function(lambda m, x: x.repeat_interleave(2, 1)),
        lambda: R(2, 9, 4),
        {},
        "repeat_interleave.*gives several steps for one",
    ),
}


def _end(write: Any) -> Any:
    return lambda: Function(lambda m, x: write(x), l=L(1, 1)), lambda: R(2, 9, 4), {}


def _filled_through_views(x: Tensor) -> Any:
    parts = torch.zeros_like(x).chunk(2, -1)
    for t in range(x.shape[1]):
        parts[0][:, t] = parts[1][:, t] = x[:, t, :2]
    return parts


def _written_but_the_last(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :-1] = x[:, :-1]
    return y


def _smeared(x: Tensor) -> Tensor:
    y = x * 2
    y[..., 1:] = y[..., :-1]
    return y


def _each_hundredth(x: Tensor) -> Tensor:
    h, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        if t % 100 == 0:
            h = torch.zeros_like(h)
        h = 0.9 * h + x[:, t]
        out.append(h)
    return torch.stack(out, 1)


def _autocast(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.l(x)


class Flag(nn.Module):
    """One that goes another way once a flag of its own is set, which `read` takes into Python."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.l, self.read = L(4, 4), read
        self.register_buffer("full", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.l(x).tanh()
        y = 2 * y if self.read(self.full) else y
        self.full = (x.sum() > 400) | self.full
        return y


NOT_NEIGHBOURS: dict[str, tuple[Any, ...]] = {
    "zeros behind the last but one": (
        *_end(lambda x: torch.cat([x[:, :-1], torch.zeros_like(x[:, :1])], 1)),
        "in the place of the last steps.*fill in front",
    ),
    "padded where it was cut": (
        *_end(lambda x: F.pad(x[:, :-2], (0, 0, 0, 2))),
        "in the place of the last steps.*fill in front",
    ),
    "written but for the last": (*_end(_written_but_the_last), "leaves out the last steps"),
    "the first steps": (*_end(lambda x: x.narrow(1, 0, 3)), "fixed steps of the sequence"),
    "smeared": (*_end(_smeared), "writes in place over what it reads.*clone"),
    "each hundredth step in Python": (
        lambda: Function(lambda m, x: _each_hundredth(x)),
        lambda: torch.zeros(2, 9, 4),  # an example that shows nothing
        {},
        "step 100 gives another",
    ),
    "autocast": (lambda: Function(_autocast, l=L(4, 4)), lambda: R(2, 9, 4), {}, "switches autocast on"),
    "a flag that is kept": (lambda: Flag(bool), lambda: R(2, 9, 4), {}, "reads a tensor.s value into Python"),
    "a flag that is kept, as a number": (
        lambda: Flag(lambda full: full.item()),
        lambda: R(2, 9, 4),
        {},
        "reads a tensor.s value into Python",
    ),
    "cond": (*_end(lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))), COND),
    "two views of what a loop fills": (*_end(_filled_through_views), "another view is used as well"),
    "a mask's elements": (*_end(lambda x: x[x < 0]), "as many elements as a mask has"),
    "places looked up": (*_end(lambda x: x.index_put((torch.arange(2),), x[:1])), "only x.mask. = number"),
    "complex numbers": (*_end(lambda x: torch.complex(x, x).abs()), "complex"),
    "bits": (*_end(lambda x: (x > 0).int() & 1), "works on the bits"),
}
