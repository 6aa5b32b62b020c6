"""BiDAF as a model, its groups by Wen's count, and its training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from sparsernn import GroupLasso, Shrink, accelerate, compact, trace
from sparsernn_studies.tasks import squad
from sparsernn_studies.tasks.reading import Answering, Vocabulary, answers
from sparsernn_studies.train import Training, train
from sparsernn_studies.wen.bidaf import TABLE_3, TABLE_4
from sparsernn_studies.wen.bidaf_model import SIX, BiDAF, Sizes, six, units, weights

QUESTIONS = list(squad.made(24, 0))
VOCABULARY = Vocabulary.of(QUESTIONS)
PAIRS = [(q.passage.words, q.words) for q in QUESTIONS]
EXAMPLES = [VOCABULARY.inputs(PAIRS[:1]), VOCABULARY.inputs(PAIRS[:3])]
SETS = [
    f"{part}.l{n}{end}" for part, n in (("modelling", 0), ("modelling", 1), ("output", 0)) for end in ("", "_reverse")
]


pytestmark = pytest.mark.usefixtures("one_thread")


def model(hidden: int = 5, widths: tuple[int, ...] = (), dropout: float = 0.0) -> BiDAF:
    torch.manual_seed(1)
    sizes = Sizes(len(VOCABULARY.words) + 2, len(VOCABULARY.letters) + 2, 7, 4, 6, hidden=hidden, widths=widths)
    return BiDAF(sizes, dropout)


def without(net: BiDAF, dead: dict[str, list[int]]) -> BiDAF:
    """`net` with nothing left that reads these units."""
    groups = trace(net, EXAMPLES).groups("unit")
    gone = torch.zeros(groups.count, dtype=torch.bool)
    for name, numbers in dead.items():
        gone[groups.units[name][numbers]] = True
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name, mask in groups.mask(parameters, gone, ("outgoing",)).items():
            parameters[name].mul_(mask)
    return net


# The model


def test_groups_have_the_sizes_of_wens_count():
    """4800, 4001 and 6401 (arXiv 1709.05027); his configuration has 3201 for 4001, without the 800 weights that read
    the attention-weighted first layer."""
    with torch.random.fork_rng():
        net = BiDAF(Sizes(len(VOCABULARY.words) + 2, len(VOCABULARY.letters) + 2))
    structure = trace(net, EXAMPLES, check=False)
    groups = structure.groups("unit")
    found = groups.sizes(dict(net.named_parameters()))
    for name, size in zip(SETS, (4800, 4800, 4001, 4001, 6401, 6401)):
        assert structure.unit_sets[name] == 100 and (found[groups.units[name]] == size).all(), name
    assert not structure.removable()["contextual.l0"].any()  # a dot product reads them


def test_only_the_six_lstms_are_governed():
    sparsifier = Shrink(model(), EXAMPLES, to=0.5, steps=10, include=SIX)
    (level,) = sparsifier.levels
    assert set(level.groups.units) == set(SETS) and level.count == 6 * 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [TABLE_3, TABLE_4])
def test_the_nets_of_the_paper_have_its_weights_but_for_a_constant(table):
    """The paper's counts have 0.12 to 0.15 million more in every row, as word vectors that are trained would."""
    for _, _, widths, millions, _ in table:
        with torch.device("meta"):
            net = BiDAF(Sizes(1000, 100, widths=widths))
        assert [layer.hidden_size for layer in six(net)] == list(widths)
        count = sum(p.numel() for n, p in net.named_parameters() if p.dim() > 1 and n != "words.weight")
        assert 0.12 < millions - count / 1e6 < 0.15


def test_forget_gates_begin_open():
    for name, bias in model(widths=(3, 4, 5, 6, 7, 8)).named_parameters():
        if ".bias_ih" in name:
            i, f, g, o = bias.detach().chunk(4)
            assert f.eq(1).all() and not torch.cat([i, g, o]).eq(1).any()


@pytest.mark.parametrize("widths", [(), (3, 4, 5, 6, 7, 8)])
def test_padding_changes_nothing(widths):
    net = model(widths=widths).double().eval()
    with torch.no_grad():
        start_BT, end_BT = net(*VOCABULARY.inputs(PAIRS[:8]))
        for b, pair in enumerate(PAIRS[:8]):
            for whole_BT, alone_1T in zip((start_BT, end_BT), net(*VOCABULARY.inputs([pair]))):
                length = len(pair[0])
                torch.testing.assert_close(whole_BT[b, :length], alone_1T[0], rtol=0, atol=1e-12)
                assert whole_BT[b, length:].eq(-torch.inf).all()
    assert len({len(passage) for passage, _ in PAIRS[:8]}) > 1 and len({len(question) for _, question in PAIRS[:8]}) > 1


def test_attention_flows_as_published():
    """Equations of Seo et al. (arXiv 1611.01603), section 2, attention flow layer, word by word."""
    net = model().double().eval()
    h, u = torch.randn(9, 10, dtype=torch.float64), torch.randn(4, 10, dtype=torch.float64)
    w = torch.cat([net.passage_score.weight[0], net.question_score.weight[0], net.both_score]).detach()
    s = torch.stack(
        [torch.stack([w @ torch.cat([a, b, a * b]) + net.passage_score.bias.detach()[0] for b in u]) for a in h]
    )
    seen = torch.stack([sum(p * b for p, b in zip(row.softmax(0), u)) for row in s])  # type: ignore[misc]
    most = sum(p * a for p, a in zip(s.max(1).values.softmax(0), h))
    wanted = torch.cat([h, seen, h * seen, h * most], 1)
    padded = [pad_sequence([x, x[:2]], batch_first=True, padding_value=3.0) for x in (h, u)]
    paddings = [torch.arange(len(x)) >= torch.tensor([[len(x)], [2]]) for x in (h, u)]
    with torch.no_grad():
        found = net.attend(*padded, *paddings)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-12)


def test_without_dead_units_the_answers_are_the_same():
    dead = dict(zip(SETS, ([0, 3], [1, 2, 4], [4], [], [0, 1, 2, 3], [2])))
    net = without(model(), dead).eval()
    small: Any = compact(net, EXAMPLES)
    assert units(small) == [3, 2, 4, 5, 1, 4] and small.contextual.hidden_size == 5
    assert weights(small)["parameters"] < weights(net)["parameters"]
    fast = accelerate(small)
    twins = [each.double().eval() for each in (model(), small)]
    twins[0].load_state_dict(net.state_dict())
    with torch.no_grad():
        for pairs in (PAIRS, PAIRS[:1], PAIRS[3:4]):
            inputs = VOCABULARY.inputs(pairs)
            real = torch.arange(inputs[2].shape[1]) < inputs[3][:, None]
            for a, b, c in zip(twins[0](*inputs), twins[1](*inputs), fast(*inputs)):
                assert float((a - b)[real].abs().max()) < 1e-10
                assert float((a - c)[real].abs().max()) < 1e-4
                assert torch.equal(a == -torch.inf, ~real) and torch.equal(c == -torch.inf, ~real)


def test_dropout_is_for_training_alone():
    net = model(dropout=0.5)
    first, second = net(*EXAMPLES[1])[0], net(*EXAMPLES[1])[0]
    assert not torch.equal(first, second)
    net.eval()
    assert torch.equal(net(*EXAMPLES[1])[0], net(*EXAMPLES[1])[0])
    with pytest.raises(ValueError, match="the units of six LSTMs"):
        model(widths=(3, 4))


# Training


SPARSIFIERS: dict[str, Any] = {
    "dense": None,
    "iss": lambda net: GroupLasso(net, EXAMPLES, strength=0.05, update="subgradient", threshold=4e-4, include=SIX),
    "target": lambda net: Shrink(net, EXAMPLES, to=0.4, steps=12, include=SIX),
}


@pytest.mark.filterwarnings("ignore:.*divides the penalty's gradient")
@pytest.mark.parametrize(
    "kind, optimizer", [("dense", "adadelta"), ("iss", "adamw"), ("target", "adamw"), ("target", "adadelta")]
)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, kind, optimizer):
    def run(folder: str, until: int | None) -> tuple[BiDAF, Any]:
        net, objective = model(dropout=0.2), Answering(QUESTIONS, VOCABULARY, 8, 3)
        settings = Training(12, 1e-2, 2, clip=5.0, optimizer=optimizer, checkpoint_every=5)
        where = tmp_path / folder
        history = train(
            net, objective, settings, seed=4, sparsify=SPARSIFIERS[kind], folder=where, until=lambda step: step == until
        )
        return net, history

    whole, course = run("whole", None)
    run("parts", 7)
    again, other = run("parts", None)
    assert course.loss == other.loss and course.density == other.density and len(course.loss) == 12
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_it_learns_to_answer():
    questions = list(squad.made(200, 5))
    vocabulary = Vocabulary.of(questions)
    torch.manual_seed(0)
    net = BiDAF(Sizes(len(vocabulary.words) + 2, len(vocabulary.letters) + 2, 16, 4, 8, hidden=12))
    history = train(net, Answering(questions, vocabulary, 25), Training(150, 1e-2, 10, clip=5.0), seed=0)
    right = sum(found[:2] == q.span for found, q in zip(answers(net, vocabulary, questions), questions))
    assert right > 140 and history.loss[-1] < 0.5 * history.loss[0] and not net.eval().training
