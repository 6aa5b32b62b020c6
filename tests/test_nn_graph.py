"""Graph networks against an oracle that goes from edge to edge, and against torch's own modules."""

from __future__ import annotations

import copy
import io

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparsernn.nn import GraphGRU, GraphLSTM, GraphRNN, RaggedState
from sparsernn.nn.layering import INPUT, layers_of

KINDS = {"LSTM": GraphLSTM, "GRU": GraphGRU, "RNN": GraphRNN}


def cell(kind: str, pre_x: list[Tensor], pre_h: list[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One unit's step from its gates' two sums, each (B,): torch's equations."""
    if kind == "LSTM":
        i, f, g, o = (x + y for x, y in zip(pre_x, pre_h))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if kind == "GRU":
        r, z = (torch.sigmoid(x + y) for x, y in zip(pre_x[:2], pre_h[:2]))
        n = torch.tanh(pre_x[2] + r * pre_h[2])
        return (1 - z) * n + z * h, c
    act = torch.tanh if kind == "RNN_TANH" else torch.relu
    return act(pre_x[0] + pre_h[0]), c


def edge_by_edge(net, graph: nx.DiGraph, x_TBI: Tensor, skips: str, loops: nx.DiGraph | None) -> dict:
    """node -> its value at every step, (T, B): a loop over time, nodes and edges; weights are read off `net`."""
    layer_of = {v: n for n, layer in enumerate(net.nodes) for v in layer}
    place = {v: layer.index(v) for layer in net.nodes for v in layer}
    states: dict = {}
    values: dict = {v: [] for v in graph}
    zero = x_TBI.new_zeros(x_TBI.shape[1])
    for x_BI in x_TBI:
        before = {key: state[0] for key, state in states.items()}
        for layer, nodes in enumerate(net.nodes):
            # In "added" form each pair of layers has units of its own; else one set of units reads everything.
            groups = [[s] for s in net.layering.sources[layer]] if skips == "added" else [None]
            width, parts = len(nodes), len(groups)
            w_ih, w_hh = (
                getattr(net, f"{n}_l{layer}").view(net.gates, parts, width, -1) for n in ("weight_ih", "weight_hh")
            )
            b_ih, b_hh = (getattr(net, f"{n}_l{layer}").view(net.gates, parts, width) for n in ("bias_ih", "bias_hh"))
            reads = net.layering.sources[layer]
            start = {s: sum(len(net.nodes[q]) for q in reads[:n]) for n, s in enumerate(reads)}
            for v in nodes:
                total = zero
                for part, group in enumerate(groups):
                    k = place[v]
                    ins = [
                        (start[layer_of[u]] + place[u], values[u][-1])
                        for u in graph.predecessors(v)
                        if group is None or layer_of[u] in group
                    ]
                    if INPUT in (reads if group is None else group):
                        ins += [(start[INPUT] + column, x_BI[:, column]) for column in range(net.input_size)]
                    back = [u for u in nodes if loops is None or loops.has_edge(u, v)]
                    pre_x = [
                        b_ih[g, part, k] + sum((w_ih[g, part, k, c] * a for c, a in ins), zero)
                        for g in range(net.gates)
                    ]
                    pre_h = [
                        b_hh[g, part, k]
                        + sum(
                            (w_hh[g, part, k, part * width + place[u]] * before.get((u, part), zero) for u in back),
                            zero,
                        )
                        for g in range(net.gates)
                    ]
                    states[v, part] = cell(net.mode, pre_x, pre_h, *states.get((v, part), (zero, zero)))
                    total = total + states[v, part][0]
                values[v].append(total)
    return {v: torch.stack(steps) for v, steps in values.items()}


@st.composite
def graphs(draw) -> nx.Graph:
    n, seed = draw(st.integers(1, 9)), draw(st.integers(0, 10**6))
    kind = draw(st.sampled_from(["er", "ba", "ws", "directed"]))
    if kind == "ba" and n > 2:
        return nx.barabasi_albert_graph(n, draw(st.integers(1, 2)), seed=seed)
    if kind == "ws" and n > 4:
        return nx.watts_strogatz_graph(n, 4, draw(st.sampled_from([0.1, 1.0])), seed=seed)
    graph = nx.gnp_random_graph(n, draw(st.sampled_from([0.0, 0.3, 0.8])), seed=seed)
    if kind == "directed":
        # Names in an order of their own, edges from later to earlier nodes too.
        names = "hgfedcbai"
        return nx.DiGraph([(names[v], names[u]) for u, v in graph.edges()] + []) if graph.edges else nx.path_graph(2)
    return graph


@settings(max_examples=30, deadline=None)
@given(
    graphs(),
    st.sampled_from(["LSTM", "GRU", "RNN", "relu"]),
    st.sampled_from(["sources", "all"]),
    st.sampled_from(["input", "added"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_equals_a_loop_over_edges(graph, kind, inputs, skips, masked, seed):
    torch.manual_seed(seed)
    loops = nx.gnp_random_graph(len(graph), 0.6, seed=seed, directed=True) if masked else None
    if loops is not None:
        loops = nx.relabel_nodes(loops, dict(enumerate(graph)))
        loops.add_edges_from((v, v) for v in list(graph)[::2])
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    net = KINDS["RNN" if kind == "relu" else kind](
        3,
        graph,
        inputs=inputs,
        skips=skips,
        outputs="all",
        recurrent="dense" if loops is None else loops,
        dtype=torch.float64,
        **options,
    )
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    order = {v: n for n, v in enumerate(graph)}
    dag = nx.DiGraph()
    dag.add_nodes_from(graph)
    dag.add_edges_from((u, v) if graph.is_directed() or order[u] < order[v] else (v, u) for u, v in graph.edges())
    values = edge_by_edge(net, dag, x, skips, loops)
    expected = torch.stack([values[v] for layer in net.nodes for v in layer], -1)
    assert torch.allclose(net(x)[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_graph_without_edges_is_torchs_own_layer(kind, batch_first):
    """Output, states, gradients: padded, packed, unbatched, with initial states."""
    torch.manual_seed(0)
    net = KINDS[kind](4, nx.empty_graph(6), batch_first=batch_first, dtype=torch.float64)
    own = getattr(nn, kind)(4, 6, batch_first=batch_first, dtype=torch.float64)
    own.load_state_dict(net.state_dict())
    x = torch.randn(5, 5, 4, dtype=torch.float64)
    h = torch.randn(1, 5, 6, dtype=torch.float64)
    start = (h, h.flip(1)) if kind == "LSTM" else h
    packed = pack_padded_sequence(x, torch.tensor([2, 5, 1, 4, 5]), batch_first=batch_first, enforce_sorted=False)
    for arguments in [(x,), (x, start), (packed,), (packed, start), (x[0],)]:
        results = [torch.utils._pytree.tree_leaves(m(*arguments)) for m in (net, own)]
        for a, b in zip(*results):
            assert (torch.as_tensor(a) - torch.as_tensor(b)).abs().max() <= 1e-10
        for m in (net, own):
            m.zero_grad()
            m(*arguments)[1][-1].sum().backward()
        for (name, p), q in zip(net.named_parameters(), own.parameters()):
            assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-10), name


def test_a_chain_of_full_layers_is_torchs_stack():
    """Every edge between neighbouring layers and none beyond: torch.nn.LSTM with as many layers."""
    graph = nx.complete_multipartite_graph(5, 5)
    graph.add_edges_from((u, v) for u in range(5, 10) for v in range(10, 15))
    net = GraphLSTM(4, graph, dtype=torch.float64)
    own = nn.LSTM(4, 5, 3, dtype=torch.float64)
    own.load_state_dict(net.state_dict())
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    (y, (h, c)), (y_own, (h_own, c_own)) = net(x), own(x)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in ((y, y_own), (h, h_own), (c, c_own)))


@given(graphs())
@settings(max_examples=40, deadline=None)
def test_layers_are_longest_paths(graph):
    layers = layers_of(graph)
    assert sorted(map(str, graph)) == sorted(str(v) for layer in layers for v in layer)
    order = {v: n for n, v in enumerate(graph)}
    dag = nx.DiGraph()
    dag.add_nodes_from(graph)
    dag.add_edges_from((u, v) if graph.is_directed() or order[u] < order[v] else (v, u) for u, v in graph.edges())
    assert len(layers) == nx.dag_longest_path_length(dag) + 1
    assert set(layers[0]) == {v for v in dag if dag.in_degree(v) == 0}
    sinks = [v for layer in layers for v in layer if dag.out_degree(v) == 0]
    net = GraphRNN(2, graph)
    assert net.output_size == len(sinks)
    assert [layer[k] for layer, units in zip(net.nodes, net.layering.readout) for k in units] == sinks
    longest = {v: max((len(p) - 1 for s in layers[0] for p in nx.all_simple_paths(dag, s, v)), default=0) for v in dag}
    assert all(longest[v] == n for n, layer in enumerate(layers) for v in layer)


@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_every_gate_of_a_unit_has_the_edges_of_its_node(kind, gates):
    graph = nx.barabasi_albert_graph(12, 2, seed=3)
    net = KINDS[kind](3, graph)
    for layer, nodes in enumerate(net.nodes):
        if layer == 0:
            assert net.mask_ih_l0 is None
            continue
        sources = [u for s in net.layering.sources[layer] for u in net.nodes[s]]
        mask = getattr(net, f"mask_ih_l{layer}")
        mask = torch.ones(gates * len(nodes), len(sources), dtype=torch.bool) if mask is None else mask
        for g in range(gates):
            for k, v in enumerate(nodes):
                edges = [graph.has_edge(u, v) for u in sources]
                assert mask[g * len(nodes) + k].tolist() == edges


def test_only_edges_are_counted_as_weights():
    graph = nx.path_graph(4)
    # Input and own feedback of the first node, then an edge and feedback for each.
    assert GraphRNN(3, graph).edge_weights() == (3 + 1) + 3 * (1 + 1)
    assert GraphLSTM(3, graph).edge_weights() == 4 * GraphRNN(3, graph).edge_weights()
    assert GraphRNN(3, graph, inputs="all").edge_weights() == (3 + 1) + 3 * (3 + 1 + 1)


def test_packed_sequences_equal_single_ones():
    torch.manual_seed(1)
    net = GraphLSTM(3, nx.watts_strogatz_graph(12, 4, 0.5, seed=2), dtype=torch.float64)
    lengths = torch.tensor([3, 6, 1, 4])
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    y, (h, c) = net(pack_padded_sequence(x, lengths, enforce_sorted=False))
    y, _ = pad_packed_sequence(y)
    assert isinstance(h, RaggedState) and h.widths == tuple(len(layer) for layer in net.nodes)
    for n, length in enumerate(lengths.tolist()):
        alone, (h_alone, c_alone) = net(x[:length, n])
        assert torch.allclose(y[:length, n], alone, rtol=0, atol=1e-12)
        for rows, rows_alone in ((h, h_alone), (c, c_alone)):
            assert all(torch.allclose(a[n], b, rtol=0, atol=1e-12) for a, b in zip(rows, rows_alone))


def test_a_state_handed_back_goes_on():
    net = GraphGRU(3, nx.barabasi_albert_graph(10, 2, seed=2), skips="added", batch_first=True, dtype=torch.float64)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    first, state = net(x[:, :4])
    second, _ = net(x[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], 1), net(x)[0], rtol=0, atol=1e-12)


def test_copies_and_pickles_keep_the_graph():
    net = GraphRNN(3, nx.barabasi_albert_graph(9, 2, seed=1), nonlinearity="relu")
    x = torch.randn(4, 2, 3)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    again = GraphRNN(3, nx.barabasi_albert_graph(9, 2, seed=1), nonlinearity="relu")
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(x)[0], net(x)[0]) and torch.equal(copy.deepcopy(net)(x)[0], net(x)[0])
    assert net.double()(x.double())[0].dtype == torch.float64


def test_dropout_acts_between_layers_and_not_in_eval_mode():
    torch.manual_seed(0)
    net = GraphLSTM(3, nx.path_graph(5), dropout=0.5)
    x = torch.randn(4, 30, 3)
    assert not torch.equal(net(x)[0], net(x)[0])
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((3, [(0, 1)]), {}, "expected a networkx graph"),
        ((3, nx.Graph()), {}, "no nodes"),
        ((3, nx.DiGraph([(0, 1), (1, 2), (2, 0)])), {}, "cycle"),
        ((0, nx.path_graph(2)), {}, "input_size"),
        ((0, nx.path_graph(2)), {"inputs": "all"}, "input_size"),
        (("3", nx.path_graph(2)), {"inputs": "all"}, "input_size"),
        ((3, nx.path_graph(2)), {"inputs": "sinks"}, "inputs is 'sinks'"),
        ((3, nx.path_graph(2)), {"skips": "both"}, "skips is 'both'"),
        ((3, nx.path_graph(2)), {"outputs": ""}, "outputs"),
        ((3, nx.path_graph(2)), {"recurrent": "sparse"}, "recurrent"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, options, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        GraphLSTM(*arguments, **options)
    assert len(str(caught.value).splitlines()) <= 3
