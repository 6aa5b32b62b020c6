"""Means of multipliers go exactly into the weights, wherever a multiplier can sit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from bayes_models import CELLS, OPTIONS, bayes, random_means, without_noise
from learn_models import SYMBOLS, tagger, tokens
from sparsernn.learn.bayes import Bayes


class Packed(nn.Module):
    """Sequences of different lengths, the last hidden states of both directions read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(5, 6, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: PackedSequence) -> Tensor:
        out, state = self.rnn(x)
        h = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([h[0], h[1]], 1)) + self.head(out.data).sum()


def packed(seed: int = 1) -> PackedSequence:
    x = torch.randn(9, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    return pack_padded_sequence(x, torch.tensor([3, 9, 1, 6]), enforce_sorted=False)


@pytest.mark.parametrize("kind", CELLS)
def test_packed_sequences_without_variance_and_in_the_fold(kind):
    torch.manual_seed(0)
    model = Packed(kind).double()
    sparsifier = bayes(model, packed()).attach(torch.optim.SGD(model.parameters(), 0.1))
    plain = copy.deepcopy(model)
    without_noise(sparsifier)
    torch.testing.assert_close(model(packed(2)), plain(packed(2)), rtol=0, atol=1e-10)
    for one in (model, plain):
        one(packed(2)).pow(2).sum().backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10, msg=name)
    folds(model, sparsifier, packed(2))


def folds(model: nn.Module, sparsifier: Bayes, x) -> None:
    """The noisy forward with multipliers away from one is the plain one once the weights have absorbed them."""
    without_noise(sparsifier)
    random_means(sparsifier)
    before = {name: own.mean.detach().clone() for name, own in sparsifier._posterior.kinds.items()}
    shown = model.train()(x)
    assert not torch.allclose(shown, model.eval()(x))
    sparsifier._posterior.absorb(sparsifier._parameters)
    torch.testing.assert_close(model.eval()(x), shown, rtol=0, atol=1e-10)
    torch.testing.assert_close(model.train()(x), shown, rtol=0, atol=1e-10)
    assert before and all((own.mean == 1).all() for own in sparsifier._posterior.kinds.values())


@pytest.mark.smoke
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("options", list(OPTIONS))
def test_means_go_exactly_into_the_weights(kind, options):
    model = tagger(kind=kind, hidden=7, **OPTIONS[options]).double()
    folds(model, bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1)), tokens(2))


def test_the_divergence_does_not_see_the_fold():
    model = tagger(num_layers=2).double()
    sparsifier = bayes(model)
    random_means(sparsifier)
    before = sparsifier.penalty().item()
    biases = {n: p.clone() for n, p in model.named_parameters() if "bias" in n}
    sparsifier._posterior.absorb(sparsifier._parameters)
    # Each weight keeps its alpha; each multiplier as well.
    assert sparsifier.penalty().item() == pytest.approx(before, rel=1e-12)
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in biases.items())


class Curved(nn.Module):
    """Between the units and the weights that read them lies another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 9)
        self.rnn = nn.LSTM(9, 6, batch_first=True)
        self.head = nn.Linear(6, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(3 * self.rnn(self.embedding(x))[0]))


class Tied(nn.Module):
    """The embedding is the decoder as well, by a call that no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 6)
        self.rnn = nn.GRU(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.rnn(self.embedding(x))[0], self.embedding.weight)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 8, proj_size=5)
        self.cell = nn.GRUCell(5, 6)
        self.head = nn.Linear(6, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for x_t in self.rnn(nn.functional.one_hot(x % 4, 4).to(self.head.weight))[0]:
            h = self.cell(x_t, h)
        return self.head(h)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("make", "alone"), [(Curved, {"word", "input", "gate"}), (Tied, {"input", "gate"}), (Projected, set())]
)
def test_where_a_multiplier_can_not_sit_in_the_forward_it_scales_the_slices(make, alone):
    torch.manual_seed(0)
    model = make().double()
    sparsifier = bayes(model).attach(torch.optim.SGD(model.parameters(), 0.1))
    kinds = sparsifier._posterior.kinds
    assert {name for name, own in kinds.items() if own.alone.any()} <= alone
    assert not kinds["unit"].alone.any() or make is Tied
    folds(model, sparsifier, tokens(2))
    sparsifier = sparsifier.finish()
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
