"""Families, properties, null models, populations of nets and the analysis of what goes with their quality."""

from __future__ import annotations

import collections
import itertools
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from benchmarks.graphs_original import OriginalGraphNet
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsernn.nn import GraphGRU, GraphLSTM, GraphRNN
from sparsernn.nn.layering import INPUT, Inputs, directed, layers_of
from sparsernn_studies.darji.graphs import Nets, RandomGraphs
from sparsernn_studies.graphs import analysis
from sparsernn_studies.graphs.families import FAMILIES, GraphSpec, rewired, shuffled, specs
from sparsernn_studies.graphs.population import CELLS, GraphClassifier, accuracies, clip_each, fit
from sparsernn_studies.graphs.properties import PROPERTIES, properties
from sparsernn_studies.graphs.study import SYMBOLS, chunks, in_order, strings
from sparsernn_studies.runs import Run

GRAPHS = [GraphSpec("ba", 9, 0.0, 1).make(), GraphSpec("ws", 12, 0.5, 2).make(), GraphSpec("er", 7, 0.0, 3).make()]


@given(st.sampled_from(FAMILIES), st.integers(6, 40), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_families_are_connected_seeded_and_of_the_size_asked_for(family, nodes, rewiring, seed):
    spec = GraphSpec(family, nodes, rewiring, seed)
    graph = spec.make()
    assert nx.is_connected(graph) and len(graph) == nodes
    assert nx.utils.graphs_equal(graph, spec.make())
    if family == "ws":
        assert graph.number_of_edges() == nodes * (max(2, nodes // 5) // 2)
        ring = nx.watts_strogatz_graph(nodes, max(2, nodes // 5), 0)
        assert rewiring > 0 or set(map(frozenset, graph.edges)) == set(map(frozenset, ring.edges))
    if family == "ba":
        m = max(1, nodes // 10)
        assert graph.number_of_edges() == (nodes - m) * m


def test_specs_go_through_the_families_and_rewirings_and_end_with_the_null_models():
    found = specs(12, 3, 5, (8, 20), (0.1, 1.0), FAMILIES)
    assert collections.Counter(s.family for s in found[:12]) == dict.fromkeys(FAMILIES, 4)
    assert {s.rewiring for s in found if s.family == "ws"} == {0.1, 1.0}
    assert [s.null for s in found[12:]] == ["rewired", "shuffled"] * 3
    assert [s.seed for s in found[12:]] == [s.seed for s in found[:3] for _ in range(2)]
    assert found == specs(12, 3, 5, (8, 20), (0.1, 1.0), FAMILIES)


@given(st.sampled_from(FAMILIES), st.integers(12, 30), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_null_models_keep_what_they_promise_and_change_the_rest(family, nodes, seed):
    graph = GraphSpec(family, nodes, 0.5, seed).make()
    twin = rewired(graph, seed)
    assert sorted(d for _, d in twin.degree()) == sorted(d for _, d in graph.degree()) and nx.is_connected(twin)
    assert [d for _, d in twin.degree()] == [d for _, d in graph.degree()]
    mixed, dag = shuffled(graph, seed), directed(graph)
    assert layers_of(mixed) == layers_of(graph)
    layer = {v: n for n, nodes in enumerate(layers_of(graph)) for v in nodes}
    pairs = [collections.Counter((layer[u], layer[v]) for u, v in g.edges()) for g in (mixed, dag)]
    assert pairs[0] == pairs[1]
    assert GraphRNN(2, mixed).edge_weights() == GraphRNN(2, graph).edge_weights()


def test_properties_are_networkxs_own():
    """A path and a star, worked out by hand; everything else against networkx on a random graph."""
    path = properties(nx.path_graph(4))
    assert len(PROPERTIES) == 23
    assert (path["layers"], path["nodes"], path["edges"], path["source_nodes"], path["sink_nodes"]) == (4, 4, 3, 1, 1)
    assert path["diameter"] == 3 and path["density"] == 0.5 and path["average_path"] == pytest.approx(5 / 3)
    assert path["eccentricity_mean"] == 2.5 and path["eccentricity_var"] == 0.25 and path["eccentricity_std"] == 0.5
    star = properties(nx.star_graph(4))
    assert star["layers"] == 2 and star["sink_nodes"] == 4 and star["skip_edges"] == 0
    # The centre lies on all six of the six paths between leaves.
    assert star["node_betweenness_mean"] == pytest.approx(1 / 5) and star["clustering"] == 0
    graph = nx.connected_watts_strogatz_graph(20, 4, 0.5, seed=1)
    found = properties(graph)
    assert set(PROPERTIES) <= set(found)
    assert found["closeness_var"] == pytest.approx(np.var(list(nx.closeness_centrality(graph).values())))
    assert found["edge_betweenness_std"] == pytest.approx(np.std(list(nx.edge_betweenness_centrality(graph).values())))
    dag = nx.DiGraph((min(e), max(e)) for e in graph.edges)
    assert found["layers"] == nx.dag_longest_path_length(dag) + 1
    assert found["source_nodes"] == sum(d == 0 for _, d in dag.in_degree())
    assert found["sink_nodes"] == sum(d == 0 for _, d in dag.out_degree())


def alone(population: GraphClassifier, number: int, inputs: Inputs) -> GraphClassifier:
    """One graph's net with the weights that it has in the population."""
    cell = next(
        c
        for c, (kind, o) in CELLS.items()
        if type(population.graph) is kind and o.items() <= vars(population.graph).items()
    )
    net = GraphClassifier(cell, [GRAPHS[number]], population.symbols, inputs=inputs).double()
    start = sum(len(g) for g in GRAPHS[:number])
    place = {v: start + n for n, v in enumerate(directed(GRAPHS[number]))}
    big, small = population.graph, net.graph
    letters = [f"letter {n}" for n in range(population.symbols)]
    outputs = lambda g: [v for nodes, units in zip(g.nodes, g.layering.readout) for v in (nodes[k] for k in units)]  # noqa: E731
    with torch.no_grad():
        for layer, nodes in enumerate(small.nodes):
            rows = [
                g * len(big.nodes[layer]) + big.nodes[layer].index(place[v]) for g in range(big.gates) for v in nodes
            ]
            seen, own = (
                [v for s in g.layering.sources[layer] for v in (letters if s == INPUT else g.nodes[s])]
                for g in (big, small)
            )
            columns = [seen.index(u if u in letters else place[u]) for u in own]
            getattr(small, f"weight_ih_l{layer}").copy_(getattr(big, f"weight_ih_l{layer}")[rows][:, columns])
            own = [big.nodes[layer].index(place[v]) for v in nodes]
            getattr(small, f"weight_hh_l{layer}").copy_(getattr(big, f"weight_hh_l{layer}")[rows][:, own])
            for name in ("bias_ih", "bias_hh"):
                getattr(small, f"{name}_l{layer}").copy_(getattr(big, f"{name}_l{layer}")[rows])
        read = [outputs(big).index(place[v]) for v in outputs(small)]
        net.head.weight.copy_(population.head.weight[2 * number : 2 * number + 2][:, read])
        net.head.bias.copy_(population.head.bias[2 * number : 2 * number + 2])
    return net


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("inputs", ["sources", "all"])
def test_nets_trained_side_by_side_are_those_trained_alone(cell, inputs):
    """Outputs, gradient clipping and several Adam steps, in float64."""
    data = strings(1600, 16, 0)
    population = GraphClassifier(cell, GRAPHS, SYMBOLS, 4, inputs).double()
    nets = [alone(population, n, inputs) for n in range(len(GRAPHS))]
    x_TB, lengths_B, _ = data.objective(8, 0).batch(0)
    for n, net in enumerate(nets):
        assert torch.allclose(net(x_TB, lengths_B), population(x_TB, lengths_B)[:, n], rtol=0, atol=1e-12)
        assert net.weights_of_each() == [population.weights_of_each()[n]]
    fit(population, data.objective(8, 0), 6, 0.03, clip=0.05)
    for n, net in enumerate(nets):
        fit(net, data.objective(8, 0), 6, 0.03, clip=0.05)
        assert torch.allclose(net(x_TB, lengths_B), population(x_TB, lengths_B)[:, n], rtol=0, atol=1e-7)
    together = accuracies(population, *data.test())
    assert together == [accuracies(net, *data.test())[0] for net in nets]


def test_clipping_of_one_net_is_torchs():
    torch.manual_seed(0)
    model = GraphClassifier("gru", GRAPHS[:1], SYMBOLS).double()
    x_TB, lengths_B, _ = strings(1600, 16, 0).objective(8, 0).batch(0)
    model(x_TB, lengths_B).square().sum().mul(100).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    other = torch.nn.ParameterList([torch.nn.Parameter(g.clone()) for g in expected])
    for p, g in zip(other, expected):
        p.grad = g.clone()
    assert torch.nn.utils.clip_grad_norm_(other, 5.0) > 5.0
    clip_each(model, model.rows(), 5.0)
    assert all(torch.allclose(p.grad, q.grad, rtol=1e-6, atol=0) for p, q in zip(model.parameters(), other))


def test_padding_changes_nothing():
    model = GraphClassifier("lstm", GRAPHS, SYMBOLS).double()
    x_TB, lengths_B, _ = strings(1600, 16, 0).objective(8, 0).batch(0)
    longer = torch.cat([x_TB, torch.ones(5, 8, dtype=torch.long)])
    assert torch.equal(model(longer, lengths_B), model(x_TB, lengths_B))


def test_strings_are_balanced_and_short():
    data = strings(1600, 14, 3)
    assert 2 * int(data.classes_N.sum()) == len(data.classes_N) and int(data.lengths_N.max()) <= 14
    assert len(data.test()[2]) + data.train == len(data.classes_N)


def test_chunks_that_are_done_are_not_trained_again(tmp_path, monkeypatch):
    chosen = replace(RandomGraphs.at("smoke"), chunk=2, steps=2, batch=4, learning_rate=0.01)
    study = RandomGraphs(Run("darji-graphs", "smoke", 0, chosen, tmp_path, tmp_path / "results"))
    study.graphs, study.data = GRAPHS, strings(1600, 12, 0)

    def parts() -> list:
        return [
            study.part(Nets.of("tanh", "sources"), number, members) for number, members in enumerate(chunks(GRAPHS, 2))
        ]

    whole = in_order(parts())
    assert len(whole["test_accuracy"]) == len(GRAPHS)
    assert whole["weights"] == [GraphRNN(SYMBOLS, g).edge_weights() for g in GRAPHS]
    (tmp_path / "parts" / "tanh-1.json").unlink()
    trained = []
    monkeypatch.setattr("sparsernn_studies.darji.graphs.fit", lambda *a, **k: (trained.append(1), fit(*a, **k)))
    assert in_order(parts()) == whole
    assert trained == [1]
    assert sorted(itertools.chain(*chunks(GRAPHS, 2))) == [0, 1, 2]


def test_correlations_against_numpy_and_known_cases():
    source = np.random.default_rng(0)
    x, z = source.normal(size=300), source.normal(size=300)
    y = 0.6 * z + 0.8 * source.normal(size=300)
    assert analysis.pearson(x, y).r == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    found = analysis.pearson(z, y)
    # The textbook interval: tanh(artanh r ± 1.96/sqrt(n - 3)).
    assert found.low == pytest.approx(np.tanh(np.arctanh(found.r) - 1.959964 / np.sqrt(297)), abs=1e-9)
    assert found.certain and found.low < 0.6 < found.high
    # And near the percentiles of samples drawn with replacement.
    drawn = np.random.default_rng(0).integers(0, 300, (300, 300))
    low, high = np.percentile([analysis.pearson(z[chosen], y[chosen]).r for chosen in drawn], [2.5, 97.5])
    assert abs(low - found.low) < 0.06 and abs(high - found.high) < 0.06
    # Both follow z and nothing else: with z controlled, nothing is left.
    a, b = z + 0.3 * source.normal(size=300), z + 0.3 * source.normal(size=300)
    assert analysis.pearson(a, b).r > 0.8 and abs(analysis.partial(a, b, [z]).r) < 0.15
    residual = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (a, b)]
    assert analysis.partial(a, b, [z]).r == pytest.approx(np.corrcoef(*residual)[0, 1], abs=1e-9)
    assert analysis.partial(2 * z + 1, b, [z]).r == 0 and analysis.pearson([1.0] * 9, range(9)).r == 0


def test_regressions_find_what_is_there_and_nothing_in_noise():
    source = np.random.default_rng(1)
    table = source.normal(size=(120, 4))
    y = 2 * table[:, 1] + 0.1 * source.normal(size=120)
    family = np.repeat([0, 1, 2], 40)
    ridge = analysis.models()["ridge"]
    assert analysis.cross_validated(table, y, ridge) > 0.95
    assert analysis.cross_validated(table, source.normal(size=120), ridge) < 0.2
    assert all(r2 > 0.9 for r2 in analysis.held_out(table, y, family, ridge).values())
    assert int(np.argmax(analysis.importance(table, y, ridge))) == 1
    mean, half = analysis.paired([1.0, 2.0, 3.0], [1.5, 2.4, 3.6])
    assert mean == pytest.approx(0.5) and half == pytest.approx(1.96 * 0.1 / 3**0.5)


@pytest.mark.parametrize("kind", [GraphLSTM, GraphGRU, GraphRNN])
def test_the_originals_construction_is_the_same_function(kind):
    """What the benchmark compares with: one masked layer a pair of layers, stepping through time."""
    torch.manual_seed(0)
    net = kind(4, nx.connected_watts_strogatz_graph(14, 4, 1.0, seed=2), skips="added", dtype=torch.float64)
    assert max(net.layering.parts) > 2
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    assert torch.allclose(OriginalGraphNet(net)(x), net(x)[0], rtol=0, atol=1e-10)
