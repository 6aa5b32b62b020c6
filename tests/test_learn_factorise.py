"""Matrices as products of two: the best of each rank on what is read, exact where rank is lost, one budget for all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import Tagger, loss_of, tagger, tokens
from sparsernn.learn.low_rank import Spectrum, ranks_by
from sparsernn.structure.sites import Moments, Site

pytestmark = pytest.mark.filterwarnings("ignore:.*positions", "ignore:.*with projections")
KINDS = {
    "lstm": lambda: nn.LSTM(10, 12, 2, bidirectional=True),
    "gru": lambda: nn.GRU(10, 12, batch_first=True),
    "rnn": lambda: nn.RNN(10, 12, bias=False, nonlinearity="relu"),
    "projected": lambda: nn.LSTM(10, 12, proj_size=7),
    "ragged": lambda: srn.nn.RaggedGRU(10, [12, 9]),
}


class Net(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        width = sum(rnn.output_widths(1)) if hasattr(rnn, "output_widths") else rnn.proj_size or rnn.hidden_size
        self.head = nn.Linear(width * (1 + rnn.bidirectional), 8)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def net(kind: str, rank: int | None = None) -> Net:
    """A model in float64, its matrices of rank `rank`."""
    torch.manual_seed(0)
    rnn = KINDS[kind]()
    model = Net(rnn) if kind != "ragged" else Net.__new__(Net)
    if kind == "ragged":
        nn.Module.__init__(model)
        model.rnn, model.head = rnn, nn.Linear(9, 8)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2 and rank:
                p.copy_(torch.randn(len(p), rank, dtype=p.dtype) @ torch.randn(rank, p.shape[1], dtype=p.dtype) / 10)
    return model


def inputs(seed: int = 1, batch: int = 6) -> torch.Tensor:
    return torch.randn(9, batch, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_lost_rank_is_reproduced_exactly(kind):
    model = net(kind, rank=2)
    made = srn.factorise(model, [inputs(n) for n in range(3)], to=0.9)
    assert set(made.ranks.values()) == {2} and made.share < 0.75
    assert made.predicted < 1e-10 and made.measured < 1e-10
    x = inputs(50, batch=2)
    assert torch.allclose(made.model(x), model(x), rtol=0, atol=1e-10)
    assert sum(p.numel() for p in made.model.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())


def test_inputs_on_a_subspace_give_exact_results_there_and_biases_take_up_the_mean():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 30), nn.Tanh()).double().eval()
    mixed, middle = torch.randn(3, 10, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    batches = [torch.randn(40, 3, dtype=torch.float64) @ mixed + middle for _ in range(4)]
    made = srn.factorise(model, batches, to=3 * 40 / 300, ridge=0)
    assert made.ranks == {"0.weight": 3}
    x = torch.randn(5, 3, dtype=torch.float64) @ mixed + middle
    assert torch.allclose(made.model(x), model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_closed_form_is_the_best_matrix_of_its_rank(rank):
    """Found once more by descent on the two factors, from the best of many random beginnings."""
    torch.manual_seed(0)
    weight, x = torch.randn(6, 5, dtype=torch.float64), torch.randn(200, 5, dtype=torch.float64)
    x = x @ torch.randn(5, 5, dtype=torch.float64)
    spectrum = spectrum_of(weight, x)
    best = min(descended(weight, x, rank, seed) for seed in range(4))
    assert spectrum.change(rank) == pytest.approx(best, rel=1e-6)
    assert spectrum.change(rank) == pytest.approx(float(spectrum.values[rank:].square().sum()), rel=1e-9)
    plain = torch.linalg.svd(weight)
    cut = (plain.U[:, :rank] * plain.S[:rank]) @ plain.Vh[:rank]
    assert float(((cut - weight) @ x.T).square().sum(0).mean()) > 1.05 * best


def spectrum_of(weight: torch.Tensor, x: torch.Tensor) -> Spectrum:
    moments = Moments(x.shape[1])
    moments.add(x)
    return Spectrum(Site("w", 1, None, moments), weight, 0.0)


def descended(weight: torch.Tensor, x: torch.Tensor, rank: int, seed: int) -> float:
    """Alternating least squares on W' = A B."""
    moment = x.T @ x / len(x)
    inner = torch.randn(rank, len(moment), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for _ in range(2000):
        out = weight @ moment @ inner.T @ torch.linalg.inv(inner @ moment @ inner.T)
        inner = torch.linalg.solve(out.T @ out, out.T @ weight)
    difference = weight - out @ inner
    return float(((difference @ moment) * difference).sum())


def test_ranks_are_those_of_the_best_split_of_the_budget():
    torch.manual_seed(0)
    spectra = []
    for rows, columns, decay in ((8, 6, 0.5), (12, 5, 0.8)):
        scale = decay ** torch.arange(columns, dtype=torch.float64)
        spectra.append(
            spectrum_of(torch.randn(rows, columns, dtype=torch.float64) * scale, torch.eye(columns).double())
        )
    scales = [2.0, 1.0]

    def outcome(ranks):
        cost = sum(r * s.each if r else s.whole for r, s in zip(ranks, spectra))
        return cost, sum(d * s.change(r) for r, d, s in zip(ranks, scales, spectra))

    every = [outcome((a, b)) for a in (0, 1, 2, 3) for b in (0, 1, 2, 3)]
    for budget in (31, 45, 48, 62, 76, 93, 108):
        ranks, used = ranks_by(spectra, scales, budget)
        cost, error = outcome(ranks)
        assert used == cost <= budget
        # Nothing of at most the same cost is better: what comes first gains most for each weight.
        assert error <= min(e for c, e in every if c <= cost) + 1e-12
    with pytest.raises(ValueError, match=r"at least 0\.\d+, with every"):
        ranks_by(spectra, scales, 30)


def test_the_model_handed_in_is_as_it_was_and_the_new_one_trains(tmp_path):
    model = tagger(hidden=16).double()
    before = copy.deepcopy(model.state_dict())
    made = srn.factorise(model, [tokens(n) for n in range(20)], to=0.6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.share <= 0.6 and 0 < made.measured < 1 and type(made.model) is Tagger
    assert isinstance(made.model.rnn, srn.nn.FactorisedLSTM) and made.ranks["rnn.weight_hh_l0"] > 0
    small = made.model
    optimizer = torch.optim.Adam(small.parameters(), 1e-2)
    first = None
    for n in range(20):
        optimizer.zero_grad()
        loss = loss_of(small, tokens(n))
        first = first or float(loss.detach())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first
    srn.save(small, tmp_path / "small.safetensors")
    again = srn.load(Tagger(hidden=16).double(), tmp_path / "small.safetensors")
    assert torch.equal(again(tokens(3)), small(tokens(3)))
    assert (tmp_path / "small.safetensors").stat().st_size < 1.2 * 8 * sum(p.numel() for p in small.parameters()) + 4096


def test_more_weights_mean_less_change_and_the_prediction_is_near():
    model = net("lstm")
    batches = [inputs(n) for n in range(6)]
    results = [srn.factorise(model, batches, to=to) for to in (0.3, 0.5, 0.7)]
    assert [r.share <= to for r, to in zip(results, (0.3, 0.5, 0.7))] == [True] * 3
    assert results[0].measured > results[1].measured > results[2].measured
    assert all(0.3 < r.predicted / r.measured < 3 for r in results)


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_accelerated_and_in_a_stream_it_is_the_same_function(kind):
    model = net(kind)
    small = srn.factorise(model, [inputs(n) for n in range(4)], to=0.5).model.float().eval()
    x = inputs(60, batch=2).float()
    want = small(x).detach()
    fast = srn.accelerate(small)
    assert torch.allclose(fast(x), want, atol=1e-5)
    time = 1 if kind == "gru" else 0
    stream = fast.stream(batch=len(x) if time else x.shape[1])
    steps = [stream.step(each).clone() for each in x.unbind(time)]
    assert torch.allclose(torch.stack(steps, time), want, atol=1e-5)


def test_units_are_pruned_and_cut_through_the_factors():
    torch.manual_seed(0)
    small = srn.factorise(net("gru", rank=2), [inputs(n) for n in range(4)], to=0.9).model
    with torch.no_grad():  # nothing reads units 3 and 4
        small.rnn.weight_hh_in_l0[:, 3:5] = 0
        small.head.weight_in[:, 3:5] = 0
    x = inputs(61).transpose(0, 1)
    cut = srn.compact(small, x)
    assert cut.rnn.hidden_size == 10 and cut.head.in_features == 10
    assert torch.allclose(cut(x), small(x), rtol=0, atol=1e-10)


def test_a_matrix_smaller_than_its_rank_is_whole_again_and_the_model_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    small = srn.factorise(net("gru", rank=6), [inputs(n) for n in range(4)], to=0.9).model
    with torch.no_grad():  # nothing reads units 3 to 10
        small.rnn.weight_hh_in_l0[:, 3:11] = 0
        next(small.head.parameters())[:, 3:11] = 0
    x = inputs(61).transpose(0, 1)
    cut = srn.compact(small, x)
    assert cut.rnn.hidden_size == 4 and torch.allclose(cut(x), small(x), rtol=0, atol=1e-10)
    srn.save(cut, tmp_path / "cut")
    again = srn.load(net("gru", rank=6), tmp_path / "cut").eval()
    assert torch.equal(again(x), cut(x))


def test_what_can_not_be_done_is_said():
    model = tagger(hidden=6)
    model.head.weight = nn.Parameter(torch.randn(11, 6))
    with pytest.raises(ValueError, match=r"to=0.01 can't be reached: at least 0\.\d+, with every matrix of rank 1"):
        srn.factorise(model, [tokens()], to=0.01)
    with pytest.raises(ValueError, match="to is 2"):
        srn.factorise(model, [tokens()], to=2)
    with pytest.raises(ValueError, match="factorise: batches is empty"):
        srn.factorise(model, [])
    tied = tagger(hidden=9)
    tied.head.weight = tied.embedding.weight
    assert srn.factorise(tied, [tokens()], to=0.8).kept == {"embedding.weight": "several modules share it"}
