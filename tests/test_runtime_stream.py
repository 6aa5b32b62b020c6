"""A stream gives, step by step, what the model gives over the whole sequence."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsernn.nn.ragged import RaggedLSTM
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.processor import processor

# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


class Characters(nn.Module):
    def __init__(self, cls: type[nn.Module] = nn.LSTM, layers: int = 2, **options: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 10)
        self.rnn = cls(10, 33, layers, batch_first=True, **options)  # type: ignore[call-arg]
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(options.get("proj_size", 33), 13)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        y, state = self.rnn(self.embedding(tokens), state)
        return self.head(self.drop(y)), state


class Sensor(nn.Module):
    """Time first, functional activations, only the last step's label."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(5, 12)
        self.rnn = RaggedLSTM(12, [20, 7])
        self.head = nn.Sequential(nn.Linear(7, 9), nn.Sigmoid(), nn.Linear(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(torch.tanh(F.relu(self.front(x))))
        return self.head(y[-1])


@pytest.mark.smoke
@pytest.mark.parametrize("cls", (nn.LSTM, nn.GRU, nn.RNN))
@pytest.mark.parametrize("batch", (1, 4))
def test_steps_are_the_sequence(cls: type[nn.Module], batch: int) -> None:
    torch.manual_seed(1)
    model = Characters(cls).eval()
    fast = accelerate(model)
    stream = fast.stream(batch)
    tokens = torch.randint(13, (batch, 40))
    want = model.double()(tokens)[0]
    for _ in range(2):
        got = torch.stack([stream.step(tokens[:, t].contiguous()).clone() for t in range(40)], 1)
        assert (got - want).abs().max() <= 1e-5
        stream.reset()


def test_projections_and_functional_activations() -> None:
    torch.manual_seed(2)
    model = Characters(nn.LSTM, proj_size=6).eval()
    stream = accelerate(model).stream()
    tokens = torch.randint(13, (1, 9))
    got = torch.stack([stream.step(tokens[:, t]).clone() for t in range(9)], 1)
    assert torch.allclose(got, model(tokens)[0], atol=1e-5)
    sensor = Sensor().eval()
    stream = accelerate(sensor).stream(2)
    x = torch.randn(8, 2, 5)
    for t in range(8):
        y = stream.step(x[t])
        assert torch.allclose(y, sensor(x[: t + 1]), atol=1e-5)


def test_large_embeddings_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsernn.runtime import stream as module

    model = Characters().eval()
    tokens = torch.randint(13, (3, 6))
    with_table = accelerate(model).stream(3)
    monkeypatch.setattr(module, "TABLE_BYTES", 0)
    without = accelerate(model).stream(3)
    for t in range(6):
        assert torch.equal(with_table.step(tokens[:, t]), without.step(tokens[:, t]))


def test_an_activation_leaves_the_state_alone() -> None:
    torch.manual_seed(5)

    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.again = nn.GRU(3, 5), nn.GRU(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.again(self.rnn(x)[0].relu())[0])

    model = Squashed().eval()
    stream = accelerate(model).stream()
    x = torch.randn(12, 1, 3)
    got = torch.stack([stream.step(step).clone() for step in x])
    assert torch.allclose(got, model(x), atol=1e-5)


def test_state_can_be_read_and_set() -> None:
    model = Characters().eval()
    stream = accelerate(model).stream()
    token = torch.tensor([3])
    stream.step(token)
    state = stream.state
    first = stream.step(token).clone()
    stream.step(token)
    stream.state = state
    assert torch.equal(stream.step(token), first)
    assert [[tuple(s.shape) for s in layer] for layer in state] == [[(1, 33), (1, 33)]] * 2
    with pytest.raises(ValueError, match="one row a recurrent layer"):
        stream.state = state[:1]


def test_no_growth_of_error_or_memory_over_10000_steps() -> None:
    torch.manual_seed(3)
    model = nn.GRU(4, 24).eval()
    with torch.no_grad():
        model.bias_ih_l0[24:48] += 4  # nearly closed update gates: a long memory
    stream = accelerate(model).stream()
    x = torch.randn(10_000, 1, 4)
    want = model.double()(x.double())[0].detach()
    steps = list(x.unbind(0))
    worst = []
    tracemalloc.start()
    stream.step(steps[0])
    before = tracemalloc.get_traced_memory()[0]
    for t, step in enumerate(steps[1:], 1):
        y = stream.step(step)
        if t % 1000 == 999:
            worst.append(float((y - want[t]).abs().max()))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert max(worst) <= 1e-5
    assert grown < 4000  # the list of errors, nothing a step


def test_streams_in_threads_do_not_touch_each_other() -> None:
    torch.manual_seed(4)
    fast = accelerate(Characters().eval())
    tokens = torch.randint(13, (3, 200))
    alone = []
    for row in tokens:
        stream = fast.stream()
        alone.append(torch.stack([stream.step(row[t : t + 1]).clone() for t in range(200)]))
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        stream = fast.stream()
        row = tokens[number]
        found[number] = torch.stack([stream.step(row[t : t + 1]).clone() for t in range(200)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[n], alone[n]) for n in range(3))


class Flipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.flip(0))[0]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Flipped(), "flip"),
        (Characters(nn.LSTM, 1, bidirectional=True), "expected 33 features"),  # it does not run at all
        (nn.LSTM(3, 4, bidirectional=True), "bidirectional"),
    ],
)
def test_models_that_have_no_steps_say_why(model: nn.Module, why: str) -> None:
    with pytest.raises(RuntimeError, match=f"can't run step by step: .*({why})"):
        accelerate(model.eval()).stream()


class Doubled(nn.Module):
    """Reads twice as many features as its first layer says, so an input made up from that layer does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 7, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 8:
            raise ValueError(f"8 features are wanted, not {x.shape[-1]}.")
        return self.rnn(x[..., :4])[0]


def test_an_input_that_was_made_up_is_called_so() -> None:
    fast = accelerate(Doubled().eval())
    with pytest.raises(RuntimeError) as caught:
        fast.stream()
    said = str(caught.value).splitlines()
    assert said[0] == (
        "stream: Doubled can't run step by step: it fails on an input made up for it, (1, 5, 4) float32: "
        "8 features are wanted, not 4."
    )
    assert said[1] == "Pass `example=`, an input that the model takes." and len(said) == 2
    with pytest.raises(RuntimeError, match=r"fails on the example, \(1, 5, 6\) float32: 8 features are wanted, not 6"):
        fast.stream(example=torch.randn(1, 5, 6))
    for wrong in (torch.randn(8), torch.randn(0, 5, 8), torch.zeros(1, 5, 8, device="meta")):
        with pytest.raises(ValueError, match="expected a batch of sequences on the CPU, none of them empty"):
            fast.stream(example=wrong)
    with pytest.raises(TypeError, match="example holds int, no tensor"):
        fast.stream(example={"x": 3})
    stream, x = fast.stream(example={"x": torch.randn(1, 5, 8)}), torch.randn(1, 3, 8)
    got = [stream.step(x=x[:, t]).clone() for t in range(3)]
    assert torch.allclose(torch.stack(got, 1), fast(x), atol=1e-5)


@pytest.mark.parametrize("rows", (1, 3, 8))
def test_an_example_may_have_any_batch(rows: int) -> None:
    fast, x = accelerate(Characters().eval()), torch.randint(13, (rows, 4))
    stream = fast.stream(3, example=(x,))
    y = stream.step(torch.tensor([1, 2, 3]))
    assert torch.allclose(y, fast(torch.tensor([[1], [2], [3]]))[0][:, 0], atol=1e-5)


def test_opening_a_stream_leaves_the_model_alone() -> None:
    class Counting(Characters):
        calls = 0

        def forward(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
            self.calls += 1
            return super().forward(tokens, state)

    for precision in ("float32", "int8") if processor().vnni else ("float32",):
        fast = accelerate(Counting().eval(), precision)
        before = {name: set(vars(m)) for name, m in fast.named_modules()}
        fast.stream()
        assert fast.calls == 0 and before == {name: set(vars(m)) for name, m in fast.named_modules()}
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in fast.modules())


def test_sentences() -> None:
    stream = accelerate(Characters().eval()).stream(2)
    with pytest.raises(TypeError, match=r"got int, expected a tensor of \(2,\) int64"):
        stream.step(3)
    with pytest.raises(ValueError, match=r"expected \(2,\) int64 on the CPU: one time step"):
        stream.step(torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(TypeError, match="float32, expected"):
        stream.step(torch.zeros(2))
    with pytest.raises(ValueError, match=r"got \(2,\) on meta, expected \(2,\) int64 on the CPU"):
        stream.step(torch.zeros(2, dtype=torch.long, device="meta"))
    before = stream.state
    with pytest.raises(IndexError, match="outside of the embedding's rows, 0 to 12"):
        stream.step(torch.tensor([1, 13]))
    assert all(torch.equal(a, b) for x, y in zip(before, stream.state) for a, b in zip(x, y))
    with pytest.raises(ValueError, match="batch is 0"):
        accelerate(Characters().eval()).stream(0)
