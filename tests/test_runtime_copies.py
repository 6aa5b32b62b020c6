"""What `accelerate` returns is a copy of the same class: the original is untouched, misuse gets a sentence."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from sparsernn.runtime.layers import accelerate
from sparsernn.structure.trace import trace

# torch itself warns where it runs a projected LSTM without oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 24, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.head = nn.Linear(48, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        self.lstm.flatten_parameters()
        return self.head(self.lstm(self.embedding(tokens))[0])


def test_the_original_is_untouched_and_the_copy_is_the_same_class() -> None:
    model = Tagger().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = accelerate(model)
    assert isinstance(fast, Tagger) and isinstance(fast.lstm, nn.LSTM)
    assert type(model.lstm) is nn.LSTM and all(p.requires_grad for p in model.parameters())
    tokens = torch.randint(11, (3, 7))
    want = model(tokens).detach()
    assert torch.allclose(fast(tokens), want, atol=1e-5)
    assert list(fast.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for again in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(again(tokens), fast(tokens)) and "dense panel" in again.explain()


def test_changed_weights_are_packed_again() -> None:
    model, other = Tagger().eval(), Tagger().eval()
    fast = accelerate(model)
    tokens = torch.randint(11, (3, 7))
    fast(tokens)
    fast.load_state_dict(other.state_dict())
    assert torch.allclose(fast(tokens), other(tokens), atol=1e-5)


def test_sentences() -> None:
    model = Tagger()
    with pytest.raises(RuntimeError, match=r"call model.eval\(\)"):
        accelerate(model)
    model.eval()
    with pytest.raises(ValueError, match="precision is 'float16'"):
        accelerate(model, "float16")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Got str as the model, expected"):
        accelerate("model")  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning, match="no LSTM, GRU or RNN.*\n.*\nWhole calls stay on torch"):
        accelerate(nn.Conv1d(3, 3, 2).eval())
    with pytest.raises(RuntimeError, match="float64"):
        accelerate(Tagger().eval().double())
    fast = accelerate(nn.LSTM(4, 5).eval())
    with pytest.raises(RuntimeError, match="no gradients"):
        fast(torch.zeros(2, 3, 4, requires_grad=True))
    with pytest.raises(RuntimeError, match="float64"):
        fast(torch.zeros(2, 3, 4).double())
    with pytest.raises(RuntimeError, match="Expected 4, got 6"):
        fast(torch.zeros(2, 3, 6))
    with pytest.raises(RuntimeError, match="Expected hidden"):
        fast(torch.zeros(2, 3, 4), (torch.zeros(1, 2, 5), torch.zeros(1, 3, 5)))
    with pytest.raises(RuntimeError, match="only infers"):
        fast.train()(torch.zeros(2, 3, 4))


def test_made_under_inference_mode():
    """What the user wraps the call in leaves no mark on the weights, nor on what is traced."""
    model = nn.LSTM(3, 5).eval()
    x = torch.randn(4, 2, 3)
    with torch.inference_mode():
        fast = accelerate(model)
        inside = fast(x)[0]
        assert trace(model, x).unit_sets == {"l0": 5}
    with torch.no_grad():
        torch.testing.assert_close(fast(x)[0], model(x)[0], rtol=0, atol=1e-5)
        assert torch.equal(fast(x)[0], inside)
