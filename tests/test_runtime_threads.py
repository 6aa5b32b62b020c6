"""A server's day: threads that call models, open and step streams and set thread counts get the bits of one alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from sparsernn.runtime import threads
from sparsernn.runtime.layers import accelerate


class Sensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.rnn, self.head = nn.Linear(6, 8), nn.LSTM(8, 40, 2, batch_first=True), nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.front(x))[0])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(11, 9), nn.GRU(9, 33), nn.Linear(33, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


class Both(nn.Module):
    """Two directions, so its work goes to two threads, and too much of it for one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 48, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval, count = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(count)


def together(*works: Callable[[], None]) -> None:
    """All of them at once; what any of them raises comes out."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


def steps_of(model: nn.Module, x: Tensor, rows: int, time: int) -> Tensor:
    stream = model.stream(rows)  # type: ignore[operator]
    return torch.stack([stream.step(step.contiguous()).clone() for step in x.unbind(time)], time)


def test_a_servers_day(hurried: None) -> None:
    torch.manual_seed(0)
    models = [Sensor().eval(), Words().eval(), Both().eval()]
    # (model, input, time axis of a stream of it or None)
    cases = [
        (0, torch.randn(3, 17, 6), 1),
        (0, torch.randn(1, 30, 6), 1),
        (1, torch.randint(11, (12, 2)), 0),
        (2, torch.randn(24, 80, 6), None),
    ]
    alone = [accelerate(model) for model in models]
    want = []
    with torch.no_grad():
        for number, x, time in cases:
            whole = alone[number](x)
            want.append((whole, None if time is None else steps_of(alone[number], x, x.shape[1 - time], time)))
    # Not called yet: its first calls, of several threads at once, pack the weights.
    fast = [accelerate(model) for model in models]

    def calls(first: int) -> None:
        with torch.no_grad():
            for n in range(first, first + 24):
                number, x, _ = cases[n % len(cases)]
                torch.set_num_threads(1 + n % 3)
                assert torch.equal(fast[number](x), want[n % len(cases)][0])

    def streams(first: int) -> None:
        for n in range(first, first + 8):
            number, x, time = cases[n % 3]
            assert time is not None
            assert torch.equal(steps_of(fast[number], x, x.shape[1 - time], time), want[n % 3][1])

    def newcomers() -> None:
        with torch.no_grad():
            for number, model in enumerate(models):
                own = accelerate(model)
                assert torch.equal(own(cases[(0, 2, 3)[number]][1]), want[(0, 2, 3)[number]][0])

    together(*(lambda n=n: calls(n) for n in range(4)), *(lambda n=n: streams(n) for n in range(3)), newcomers)


def test_pools_of_several_sizes_at_once(hurried: None) -> None:
    def work(count: int) -> None:
        torch.set_num_threads(count)
        for n in range(200):
            assert threads.in_parallel([lambda k=k, n=n: k * n for k in range(4)]) == [k * n for k in range(4)]

    together(*(lambda c=c: work(c) for c in (2, 3, 4, 2, 3)))
