"""Graph networks through the whole package: trained, pruned, compacted, written to files and accelerated."""

from __future__ import annotations

import copy

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.nn import GraphGRU, GraphLSTM, GraphRNN

KINDS = {"LSTM": GraphLSTM, "GRU": GraphGRU, "RNN": GraphRNN}


class Classifier(nn.Module):
    def __init__(self, kind: str, graph: nx.Graph, **options: object) -> None:
        super().__init__()
        self.graph = KINDS[kind](4, graph, **options)
        self.head = nn.Linear(self.graph.output_size, 3)

    def forward(self, x_TBI: Tensor) -> Tensor:
        return self.head(self.graph(x_TBI)[0])


def absent(model: Classifier) -> dict[str, Tensor]:
    return {n.replace("mask", "weight"): ~m for n, m in model.named_buffers() if "mask" in n}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.02, momentum=0.5),
    ],
)
@pytest.mark.parametrize("skips", ["input", "added"])
def test_masks_hold_through_training(make, skips):
    torch.manual_seed(0)
    loops = nx.DiGraph((v, v) for v in range(15))
    model = Classifier("GRU", nx.barabasi_albert_graph(15, 2, seed=1), skips=skips, recurrent=loops)
    before, optimizer = copy.deepcopy(model), make(model.parameters())
    assert sum(int(mask.sum()) for mask in absent(model).values()) > 100
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(5, 4, 4)).pow(2).sum().backward()
        optimizer.step()
    for name, mask in absent(model).items():
        assert not bool(model.get_parameter(name)[mask].any())
        assert bool((model.get_parameter(name) != before.get_parameter(name))[~mask].all())


def test_what_is_written_where_there_is_no_edge_changes_nothing():
    model = Classifier("LSTM", nx.barabasi_albert_graph(12, 2, seed=1)).double()
    x = torch.randn(5, 4, 4, dtype=torch.float64)
    expected = model(x)
    for name, mask in absent(model).items():
        model.get_parameter(name).data[mask] = 7.0
    assert torch.equal(model(x), expected)
    fresh = Classifier("LSTM", nx.barabasi_albert_graph(12, 2, seed=1)).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), expected)
    assert not any(bool(fresh.get_parameter(name)[mask].any()) for name, mask in absent(fresh).items())


def thinned(kind: str, **options: object) -> tuple[Classifier, Tensor]:
    """A classifier some of whose units nothing reads any more."""
    torch.manual_seed(3)
    model = Classifier(kind, nx.barabasi_albert_graph(16, 3, seed=4), **options).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    dead = srn.trace(model, x).classes
    with torch.no_grad():
        for of_unit in dead.sets.values():
            if len(of_unit) < 3:
                continue
            gone = of_unit[::3]
            for (parameter, axis), planes in dead.planes.items():
                if planes.read.any():
                    hit = torch.isin(planes.classes, gone) & planes.read
                    tensor = dict(model.named_parameters()).get(parameter)
                    if tensor is not None and len(hit) == tensor.shape[axis]:
                        tensor.index_fill_(axis, torch.nonzero(hit)[:, 0], 0.0)
    return model, x


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skips": "added", "outputs": "last"},
        {"outputs": "all"},
        {"inputs": "all"},
        {"inputs": "all", "skips": "added"},
    ],
)
def test_compacts_and_comes_back_from_a_file(kind, options, tmp_path):
    model, x = thinned(kind, **options)
    small = srn.compact(model, x)
    assert type(small.graph) is KINDS[kind]
    assert sum(small.graph.layering.widths) < 16 and small.graph.edge_weights() < model.graph.edge_weights()
    longer = torch.randn(9, 2, 4, dtype=torch.float64)
    assert torch.allclose(small(longer), model(longer), rtol=0, atol=1e-10)
    left = [v for layer in small.graph.nodes for v in layer]
    assert set(left) < set(range(16))
    srn.save(small, tmp_path / "small.safetensors")
    again = srn.load(
        Classifier(kind, nx.barabasi_albert_graph(16, 3, seed=4), **options),
        tmp_path / "small.safetensors",
    )
    assert torch.equal(again(longer), small(longer)) and again.graph.nodes == small.graph.nodes
    assert [n for n, _ in again.named_parameters()] == [n for n, _ in small.named_parameters()]
    further = srn.load(copy.deepcopy(model), tmp_path / "small.safetensors")
    assert torch.equal(further(longer), small(longer))


def test_a_file_with_units_that_the_graph_lacks_is_refused(tmp_path):
    model, x = thinned("GRU")
    srn.save(srn.compact(model, x), tmp_path / "small.safetensors")
    other = Classifier("GRU", nx.path_graph(16)).double()
    with pytest.raises(ValueError, match="kept"):
        srn.load(other, tmp_path / "small.safetensors")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("skips", ["input", "added"])
@pytest.mark.parametrize("inputs", ["sources", "all"])
def test_accelerated_equals_torch(kind, inputs, skips):
    torch.manual_seed(5)
    model = Classifier(kind, nx.watts_strogatz_graph(14, 4, 0.5, seed=1), inputs=inputs, skips=skips).eval()
    for name, mask in absent(model).items():
        model.get_parameter(name).data[mask] = 3.0  # of no account
    fast = srn.accelerate(model)
    for x in (torch.randn(7, 2, 4), torch.randn(1, 1, 4), torch.randn(5, 4)):
        expected = copy.deepcopy(model).double()(x.double())
        with torch.no_grad():
            assert (fast(x).double() - expected).abs().max() <= 1e-5
    assert isinstance(fast.graph, KINDS[kind]) and "graph.l1" in fast.explain()
    x = torch.randn(7, 2, 4)
    stream, whole = fast.stream(2, example=x), model(x)
    for t in range(7):
        assert (stream.step(x[t]) - whole[t]).abs().max() <= 1e-5


def test_pruning_on_top_of_the_graph():
    """The absent weights count as pruned; what is pruned beyond them are weights of edges."""
    torch.manual_seed(0)
    model = Classifier("LSTM", nx.barabasi_albert_graph(14, 2, seed=0))
    x = torch.randn(5, 4, 4)
    matrices = [p for p in model.graph.parameters() if p.dim() == 2]
    total, edges = sum(p.numel() for p in matrices), model.graph.edge_weights()
    sparsity = 1 - 0.5 * edges / total
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    prune = srn.Prune(model, x, sparsity=sparsity, scope="model").attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizer.step()
    pruned = prune.finish()
    assert sum(int(p.count_nonzero()) for p in matrices) == total - round(sparsity * total)
    assert torch.isfinite(pruned(x)).all()


def test_units_are_learned_shown_and_taken_out():
    """GroupLasso by target, compact, inspect: groups hold weights only, no masks."""
    torch.manual_seed(0)
    model = Classifier("GRU", nx.barabasi_albert_graph(16, 3, seed=4))
    x = torch.randn(5, 4, 4)
    groups = srn.trace(model, x).groups("unit").of({name for name, _ in model.named_parameters()})
    assert groups.count > 0 and {m.parameter for m in groups.members} <= {n for n, _ in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    lasso = srn.Shrink(model, x, to=0.4, steps=30).attach(optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    sparse = lasso.finish().eval()
    small = srn.compact(sparse, x)
    assert sum(small.graph.layering.widths) < 16
    assert torch.allclose(small(x), sparse(x), rtol=0, atol=1e-5)
    shown = [layer["name"] for layer in srn.inspect(sparse, x).to_dict()["layers"] if layer["recurrent"]]
    assert shown == [f"graph.l{n}" for n in range(len(model.graph.nodes))]


class AsksForItsWidth(nn.Module):
    """Reads the width of the graph's output by hand, so only an adapter can make its graph smaller."""

    def __init__(self) -> None:
        super().__init__()
        graph = nx.DiGraph([(0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4), (3, 5), (4, 5), (4, 6), (4, 7)])
        self.rnn = GraphLSTM(3, graph, outputs="all")
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        assert y.shape[-1] == 8
        return self.head(y)


def test_a_graph_behind_code_that_asks_for_its_width_gets_an_adapter():
    torch.manual_seed(0)
    model, x = AsksForItsWidth().double().eval(), torch.randn(5, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0, model.rnn.weight_ih_l1, model.head.weight):
            weight[:, 1] = 0
        small = srn.compact(model, x)
        assert small.rnn.hidden_sizes == ((2,), (2,), (3,))
        assert torch.allclose(small(x), model(x), rtol=0, atol=1e-12)
