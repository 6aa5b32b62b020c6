"""Zaremba's nets, their training with a penalty in the loss, and the settings of the recipe wen-ptb."""

import math
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import nn

from paper_steps import COMMANDS
from sparsernn import L1, GroupLasso, Shrink, compact
from sparsernn_studies.checkpoint import CheckpointError
from sparsernn_studies.claims import judged
from sparsernn_studies.liu.ptb import Selfish
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.softmax_loss import linear_cross_entropy
from sparsernn_studies.tasks.text import bits_per_symbol
from sparsernn_studies.wen.claims import OF_WORDS
from sparsernn_studies.wen.ptb import verdict
from sparsernn_studies.wen.ptb_settings import ROWS, Settings
from sparsernn_studies.word_model import StackedLSTM
from sparsernn_studies.word_training import WordTrainer, WordTraining
from sparsernn_studies.zaremba import SIZES

WORDS = 13
TEXT = torch.randint(WORDS, (400,), generator=torch.Generator().manual_seed(1))
EXAMPLE = TEXT[:20].view(5, 4)


def model(widths=(6, 8), keep=1.0) -> StackedLSTM:
    torch.manual_seed(2)
    return StackedLSTM(WORDS, 5, widths, keep, 0.3)


@pytest.mark.parametrize("count", [1, 7, 50_000])
def test_the_loss_in_one_equals_linear_layer_and_cross_entropy(count):
    torch.manual_seed(0)
    words = 11 if count > 7 else 300_000  # chunks of many rows, and of one
    h = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    head, y = nn.Linear(3, words).double(), torch.randint(words, (count,))
    found = linear_cross_entropy(h, head, y, torch.float64)
    wanted = nn.functional.cross_entropy(head(h), y)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    inputs = [h, head.weight, head.bias]
    for a, b in zip(torch.autograd.grad(2 * found, inputs), torch.autograd.grad(2 * wanted, inputs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


def test_bfloat16_products_change_the_loss_by_their_rounding_alone():
    torch.manual_seed(0)
    h, head, y = torch.randn(64, 32, requires_grad=True), nn.Linear(32, 500), torch.randint(500, (64,))
    low, high = (linear_cross_entropy(h, head, y, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert low.dtype == torch.float32 and float((low - high).detach().abs()) < 0.01
    a, b = (torch.autograd.grad(loss, [h, head.weight, head.bias]) for loss in (low, high))
    assert all(float((x - y).norm() / y.norm()) < 0.02 for x, y in zip(a, b))


def test_the_rates_are_the_published_ones():
    def rates(size: str, schedule: str = "paper", row: str = "iss") -> list[float]:
        training = Settings(size=size, schedule=schedule).training(ROWS[row])  # type: ignore[arg-type]
        return [training.rate(epoch) for epoch in range(training.epochs)]

    assert rates("small") == pytest.approx([1.0] * 4 + [0.5**k for k in range(1, 10)])
    assert rates("large") == pytest.approx([1.0] * 14 + [1.15**-k for k in range(1, 42)])
    assert rates("large", "code") == pytest.approx([0.1 ** (epoch // 18) for epoch in range(55)])
    assert rates("large", "code", "dense") == rates("large")
    blocks = Settings(block_epochs=5, block_rate=0.2).training(ROWS["blocks-20"])
    assert [blocks.rate(epoch) for epoch in range(5)] == pytest.approx([0.2] * 3 + [0.1, 0.05])
    # The rate of a training that says nothing falls from its second epoch on, as AWD-LSTM's rows have it.
    assert [WordTraining(3, 2.0, decay=0.5).rate(epoch) for epoch in range(3)] == [2.0, 1.0, 0.5]


def test_the_nets_have_the_published_numbers_of_parameters():
    large = SIZES["large"]

    def parameters(widths) -> int:
        with torch.device("meta"):
            net = StackedLSTM(10_000, large.units, widths, 1.0, large.start)
        return sum(p.numel() for p in net.parameters())

    assert round(parameters((1500, 1500)) / 1e6, 1) == 66.0
    assert parameters((373, 315)) == 21_826_900  # two biases a gate


def test_cost_and_penalty_are_clipped_together(tmp_path):
    settings = WordTraining(1, 1.0, 4, 10, clip=0.05, sum_over_time=True)

    def sparsify(net, steps):
        return GroupLasso(net, EXAMPLE, strength=0.1, update="subgradient", threshold=0.0)

    net = model().double()
    trainer = WordTrainer(net, TEXT, None, settings, 0, tmp_path, sparsify)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    trainer.learn()
    moved = {name: p.detach() - before[name] for name, p in net.named_parameters()}

    other = model().double()
    logits, _ = other(trainer.x_NB[:10], other.zero_state(4))
    cost = nn.functional.cross_entropy(logits.flatten(0, 1), trainer.y_NB[:10].flatten(), reduction="sum") / 4
    penalty = sum(
        torch.sqrt(1e-8 + sum(w.square().sum() for w in slices)).sum()
        for k, width in enumerate((6, 8))
        for slices in (
            [
                *(matrix[g * width + unit] for matrix in _matrices(other, k) for g in range(4)),
                _matrices(other, k)[1][:, unit],
                other.head.weight[:, unit] if k else _matrices(other, 1)[0][:, unit],
            ]
            for unit in range(width)
        )
    )
    (cost + 0.1 * penalty).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters()))
    assert norm > 0.05
    for name, p in other.named_parameters():
        torch.testing.assert_close(moved[name], -p.grad * 0.05 / norm, rtol=1e-4, atol=1e-9)


def _matrices(net: StackedLSTM, layer: int) -> list[torch.Tensor]:
    return [net.layers[layer].weight_ih_l0, net.layers[layer].weight_hh_l0]


SPARSIFIERS = {
    "iss": lambda net, steps: GroupLasso(net, EXAMPLE, strength=0.1, update="subgradient", threshold=0.02),
    "target": lambda net, steps: Shrink(net, EXAMPLE, to=0.4, steps=steps),
    "l1": lambda net, steps: L1(net, None, strength=0.01, update="subgradient", include=("layers.*", "head.*")),
    "dense": None,
}


@pytest.mark.parametrize("kind", list(SPARSIFIERS))
@pytest.mark.parametrize("stop", [3, 15])
def test_a_sparse_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, kind, stop):
    def run(folder: str, killed: int = 0) -> WordTrainer:
        settings = WordTraining(
            3, 1.0, 4, 10, hold=1, decay=0.5, clip=2.0, sum_over_time=True, checkpoint_every=killed or 9
        )
        trainer = WordTrainer(model(keep=0.7), TEXT, TEXT[:90], settings, 5, tmp_path / folder, SPARSIFIERS[kind])
        window = trainer.learn

        def step() -> torch.Tensor:
            if trainer.step == killed > 0:
                raise InterruptedError
            return window()

        with patch.object(trainer, "learn", step), suppress(InterruptedError):
            trainer.train("test")
        return trainer

    whole = run("whole")
    run("parts", stop)
    again = run("parts")
    assert again.step == whole.step == whole.goal > stop
    assert again.losses == whole.losses and again.kept == whole.kept and len(whole.losses) == 3
    pairs = zip(whole.model.state_dict().values(), again.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("steps", [7, 20, 1000])
def test_a_training_that_steps_end_ends_its_sparsifier(tmp_path, steps):
    settings = WordTraining(3, 1.0, 4, 10, sum_over_time=True, steps=steps)
    asked = []

    def sparsify(net, number):
        asked.append(number)
        return SPARSIFIERS["target"](net, number)

    trainer = WordTrainer(model(), TEXT, TEXT[:90], settings, 5, tmp_path, sparsify)
    before = len(trainer.optimizer._optimizer_step_post_hooks)
    trainer.train("test")
    assert asked == [trainer.step] == [min(steps, 3 * -(-len(trainer.x_NB) // 10))]
    assert before == 1 and not trainer.optimizer._optimizer_step_post_hooks
    assert trainer.sparsifier is not None and trainer.sparsifier.density() <= 0.4
    # A course that was laid for so many steps is not taken up for others.
    with pytest.raises(CheckpointError, match=f"steps = {trainer.step}, this one has {trainer.step - 1}"):
        WordTrainer(model(), TEXT, None, replace(settings, steps=trainer.step - 1), 5, tmp_path, sparsify)


def test_the_net_without_dead_units_reads_the_text_as_before():
    net = model().eval()
    with torch.no_grad():
        net.layers[1].weight_ih_l0[:, [1, 4]] = 0
        net.layers[0].weight_hh_l0[:, [1, 4]] = 0
        net.layers[1].weight_hh_l0[:, 2] = 0
        net.head.weight[:, 2] = 0
    small = compact(net, EXAMPLE)
    assert [layer.hidden_size for layer in small.layers] == [4, 7]
    assert bits_per_symbol(small, TEXT, streams=3) == pytest.approx(bits_per_symbol(net, TEXT, streams=3), rel=1e-6)


def test_settings_that_do_not_go_together_are_refused():
    settings = RECIPES["wen-ptb"].at("cpu")
    for change, words in (
        ("rows=iss-tuned", "iss-tuned begins with the row dense"),
        ("rows=dense,blocks-20", "blocks-20 begins with the row iss"),
        ("block_epochs=0", "at least 1"),
        ("block_weight_decay=-1", "a number from 0 on"),
        ("rows=dense,direct", "set widths"),
        (("rows=iss", "threshold=0"), "the row dense is not among rows"),
        ("widths=373", "units of both layers"),
        ("target=1.5", "between 0 and 1"),
        ("rows=isss", "expected some of"),
        ("size=huge", "one of tiny, small"),
    ):
        with pytest.raises(SettingsError, match=words):
            with_changes(settings, [change] if isinstance(change, str) else change)
    assert with_changes(settings, ["rows=direct", "widths=373,315"]).widths == (373, 315)


def test_each_kind_of_row_has_its_own_dropout_and_decay():
    chosen = ["dense_keep=0.7", "direct_decay=1e-4", "sparse_keep=1", "sparse_decay=3e-5", "dense_tries=15"]
    s = with_changes(RECIPES["wen-ptb"].at("cpu"), ["size=medium", "sparse_tries=7", *chosen])
    for name, keep, decay, tries in (
        ("dense", 0.7, 0.0, 15),
        ("direct", 0.6, 1e-4, 1),
        ("iss", 1.0, 3e-5, 7),
        ("target", 1.0, 3e-5, 7),
        ("blocks-20", 1.0, s.block_weight_decay, 1),
    ):
        assert s.regularised(ROWS[name]) == (keep, decay, tries)
        assert s.training(ROWS[name]).weight_decay == decay


def test_nets_are_compared_whose_regularisation_was_tuned_alike():
    claim = next(c for c in OF_WORDS if c.text.startswith("ISS: less perplexity than nets of the learnt sizes"))
    for tries, answer in ((1, "not answered"), (15, "holds")):
        rows = {"iss": {"test_perplexity": 90.0, "tries": 15}, "direct": {"test_perplexity": 95.0, "tries": tries}}
        [verdict] = judged([claim], [rows] * 3)
        assert verdict.answer == answer
        assert (verdict.why == "dropout and decay of direct and iss were not tuned") == (tries == 1)


def test_selfish_rnn_is_compared_with_nets_that_have_its_dropout():
    rows = {"bigram": {"test_perplexity": 200.0}, "dense": {"test_perplexity": 100.0, "keep": 1.0, "weight_decay": 0.0}}
    rows["gradual"] = {"test_perplexity": 104.0, "keep": 0.7, "weight_decay": 0.0}
    rows["rewired"] = {"test_perplexity": 101.0, "keep": 1.0, "weight_decay": 0.0}
    assert [v.said for v in judged(Selfish.claims, [rows] * 3)] == [
        "refuted",
        "not answered: dropout or decay of gradual and rewired differ",
    ]


def test_the_verdict_names_the_fastest_blocks_that_are_no_worse_than_the_dense_net():
    def row(name: str, perplexity: float, speedup: float) -> dict:
        measured = {
            "test_perplexity": perplexity - 0.5,
            "test_perplexity_int8": perplexity,
            "units": [3, 4],
            "mult_adds": 10,
            "speedup_fast": 2.0,
            "speedup_int8": speedup,
        }
        return measured

    rows = {"dense": row("dense", 100.5, 1.0), "iss": row("iss", 95.0, 4.0)}
    rows |= {"blocks-40": row("blocks-40", 96.0, 6.0), "blocks-20": row("blocks-20", 100.0, 9.0)}
    rows |= {"blocks-10": row("blocks-10", 100.2, 12.0)}
    said = verdict(rows)
    assert "the fastest that is no worse than the dense net (100.00), at one seed: ISS, then 20% of the" in said
    assert said.endswith("in int8 100.00 and 9.0x as fast; ISS alone 95.00 and 4.0x.")
    assert "No row of blocks" in verdict({**rows, "dense": row("dense", 90.0, 1.0)})
    assert "blocks" not in verdict({row: rows[row] for row in ("dense", "iss")})


def test_the_verdict_names_the_sizes_of_a_direct_net_that_are_others():
    measured = {"test_perplexity": 90.0, "test_perplexity_int8": 90.0, "units": [3, 4], "mult_adds": 10}
    for units, words in (
        ([3, 4], ", the same sizes trained directly 90.00"),
        ([2, 5], ", [2, 5] units trained directly 90.00"),
    ):
        assert words in verdict({"iss": measured, "direct": {**measured, "units": units}})


def test_the_commands_of_the_papers_sizes_are_valid():
    for name, changes in COMMANDS.items():
        settings = with_changes(RECIPES[name].at("paper"), changes.split())
        assert settings.steps == 200


def test_averaging_from_the_start_is_refused_beside_a_sparsifier(tmp_path):
    settings = WordTraining(1, 1.0, 4, 10, averaged=True)
    with pytest.raises(ValueError, match="patience"):
        WordTrainer(model(), TEXT, None, settings, 0, tmp_path, SPARSIFIERS["iss"])
