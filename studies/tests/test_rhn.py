"""Zilly's network as a word model, its training under Wen's penalty, and the settings of the recipe wen-rhn."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F

from sparsernn import GroupLasso, Shrink, accelerate, compact, trace
from sparsernn_studies.highway_model import HighwayDrop, HighwayModel
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.runs import RunError
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.tasks.text import bits_per_symbol
from sparsernn_studies.thresholds import GRID, largest_harmless
from sparsernn_studies.wen.rhn import PAPER, TABLE_2
from sparsernn_studies.wen.rhn_settings import iss
from sparsernn_studies.word_training import WordTrainer, WordTraining

WORDS = 13
TEXT = torch.randint(WORDS, (400,), generator=torch.Generator().manual_seed(1))
EXAMPLE = TEXT[:20].view(5, 4)
DROP = HighwayDrop(0.1, 0.2, 0.1, 0.2)


def model(width: int = 6, drop: HighwayDrop = DROP) -> HighwayModel:
    torch.manual_seed(2)
    return HighwayModel(WORDS, width, 2, drop, start=0.3)


@pytest.mark.parametrize("row", list(PAPER))
def test_the_nets_of_table_2_have_the_published_numbers_of_parameters(row: str) -> None:
    with torch.device("meta"):
        net = HighwayModel(10_000, PAPER[row]["units"][0], 10, HighwayDrop())
    count = sum(p.numel() for p in net.parameters())
    assert round(count / 1e6, 1) == PAPER[row]["parameters"] / 1e6
    assert len(PAPER) == len(TABLE_2) == 5


def test_the_start_is_the_papers() -> None:
    net = HighwayModel(50, 8, 3, HighwayDrop())
    for name, p in net.named_parameters():
        if "bias_d" in name:
            h, t = p.detach().split(8)
            assert h.tolist() == [0.0] * 8 and t.tolist() == [-2.0] * 8
        else:
            assert 0 < p.detach().abs().max().item() <= 0.04
    assert net.head.weight is net.embedding.weight


def test_a_dropped_word_is_zero_wherever_it_stands_in_its_text() -> None:
    net = model(drop=HighwayDrop(words=0.5)).train()
    seen: list[torch.Tensor] = []
    net.layers[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    x_TB = torch.randint(WORDS, (40, 3))
    net(x_TB)
    for b in range(3):
        for word in range(WORDS):
            here = seen[0][x_TB[:, b] == word, b]
            plain = net.embedding.weight.detach()[word]
            assert not len(here) or torch.equal(here, torch.zeros_like(here)) or torch.allclose(here, 2 * plain)
    shares = [(seen[0][:, b] == 0).all(-1) for b in range(3)]
    assert not torch.equal(shares[0], shares[1])  # each text has its own
    net.eval()
    net(x_TB)
    assert torch.equal(seen[1], net.embedding(x_TB))


def test_the_output_mask_is_one_for_all_steps() -> None:
    net = model(drop=HighwayDrop(output=0.5)).train()
    dropped, raw, _ = net.run(EXAMPLE, None)
    gone = dropped == 0
    assert torch.equal(gone, gone[:1].expand_as(gone)) and 0 < int(gone[0].sum()) < gone[0].numel()
    assert torch.equal(dropped[~gone], (2 * raw)[~gone])


def test_the_state_goes_on_and_the_loss_is_that_of_the_logits() -> None:
    net = model().eval()
    whole = net(TEXT[:40].view(10, 4))
    first, state = net(TEXT[:20].view(5, 4), net.zero_state(4))
    second, _ = net(TEXT[20:40].view(5, 4), state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    h, _, _ = net.run(EXAMPLE, None)
    wanted = F.cross_entropy(net(EXAMPLE).flatten(0, 1), EXAMPLE.flatten())
    torch.testing.assert_close(net.nats(h, EXAMPLE, None), wanted)


def test_its_units_are_one_set_and_the_net_without_the_dead_ones_reads_as_before() -> None:
    net = model(8, HighwayDrop()).eval()
    structure = trace(net, EXAMPLE)
    assert structure.unit_sets == {"layers.0.l0": 8}
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 2:
                p[:, [1, 4]] = 0
    small: Any = compact(net, EXAMPLE)
    assert small.layers[0].hidden_size == small.embedding.embedding_dim == small.head.in_features == 6
    assert bits_per_symbol(small, TEXT, streams=3) == pytest.approx(bits_per_symbol(net, TEXT, streams=3), rel=1e-6)
    fast = accelerate(small)
    assert bits_per_symbol(fast, TEXT, streams=3) == pytest.approx(bits_per_symbol(net, TEXT, streams=3), rel=1e-5)
    stream = fast.stream()
    steps = torch.stack([stream.step(word.view(1)).clone() for word in TEXT[:9]])
    torch.testing.assert_close(steps, small(TEXT[:9].view(9, 1)).detach(), rtol=0, atol=1e-5)


SPARSIFIERS: dict[str, Any] = {
    "iss": lambda net, steps: GroupLasso(net, EXAMPLE, strength=0.1, update="subgradient", threshold=0.02),
    "target": lambda net, steps: Shrink(net, EXAMPLE, to=0.4, steps=steps),
    "dense": None,
}


@pytest.mark.parametrize("kind", list(SPARSIFIERS))
@pytest.mark.parametrize("stop", [3, 15])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, kind: str, stop: int) -> None:
    def run(folder: str, killed: int = 0) -> WordTrainer:
        settings = WordTraining(
            3, 1.0, 4, 10, clip=2.0, sum_over_time=True, keep_best=kind != "target", checkpoint_every=killed or 9
        )
        trainer = WordTrainer(model(), TEXT, TEXT[:90], settings, 5, tmp_path / folder, SPARSIFIERS[kind])
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
    assert again.step == whole.step == whole.goal > stop and again.losses == whole.losses
    pairs = zip(whole.model.state_dict().values(), again.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_best_epochs_net_is_kept(tmp_path: Path) -> None:
    def run(folder: str, **changes: Any) -> WordTrainer:
        # A rate that grows spoils the net after a good start.
        settings = WordTraining(4, 0.5, 4, 10, hold=2, decay=6.0, clip=2.0, sum_over_time=True, **changes)
        trainer = WordTrainer(model(drop=HighwayDrop()), TEXT, TEXT[:200], settings, 5, tmp_path / folder)
        trainer.train("test")
        return trainer

    best, last = run("best", keep_best=True), run("last")
    assert best.losses == last.losses and min(best.losses) < best.losses[-1]
    for trainer, loss in ((best, min(best.losses)), (last, last.losses[-1])):
        assert bits_per_symbol(trainer.model, TEXT[:200], streams=10, window=10) == pytest.approx(loss, rel=1e-6)
    # A new training in the same folder does not take an older one's net.
    (tmp_path / "best" / "checkpoint.safetensors").unlink()
    again = run("best", keep_best=True)
    assert again.losses == best.losses


def test_the_best_net_is_one_whose_weights_are_gone_as_at_the_end(tmp_path: Path) -> None:
    # The rate spoils the net from the third epoch on: without masks the second would be the best of all.
    settings = WordTraining(6, 0.5, 4, 10, hold=2, decay=2.0, clip=2.0, sum_over_time=True, keep_best=True)
    trainer = WordTrainer(
        model(drop=HighwayDrop()),
        TEXT,
        TEXT[:200],
        settings,
        5,
        tmp_path,
        lambda net, steps: Shrink(net, EXAMPLE, to=0.4, steps=steps // 2),
    )
    trainer.train("test")
    assert trainer.sparsifier is not None and 0 < trainer.settled < 5
    best = min(trainer.losses[trainer.settled :])
    assert bits_per_symbol(trainer.model, TEXT[:200], streams=10, window=10) == pytest.approx(best, rel=1e-6)
    weights = dict(trainer.model.named_parameters())
    masks = trainer.sparsifier.state_dict()["masks"]
    assert masks and all(not bool(weights[name][~mask].any()) for name, mask in masks.items())
    assert min(trainer.losses) < best


def test_the_settings_are_the_papers() -> None:
    settings = RECIPES["wen-rhn"].at("paper")
    names = tuple(row.name for row in settings.nets)
    assert names[:5] == tuple(PAPER) and names[5:] == ("target", "direct")
    dense, target = settings.nets[0], settings.nets[5]
    training = settings.training(dense)
    rates = [training.rate(epoch) for epoch in (0, 19, 20, 499)]
    assert rates == pytest.approx([0.2, 0.2, 0.2 / 1.02, 0.2 * 1.02**-480])
    assert (training.batch, training.bptt, training.clip, training.sum_over_time) == (20, 35, 10.0, True)
    assert settings.drop(dense) == HighwayDrop(0.25, 0.75, 0.25, 0.75)
    sparse = settings.drop(iss(0.005))
    assert [sparse.words, sparse.input, sparse.state, sparse.output] == pytest.approx([0.15, 0.45, 0.15, 0.45])
    assert training.keep_best and not settings.training(target).keep_best


@pytest.mark.parametrize(
    "change, words",
    [
        ("width=0", "width is 0"),
        ("strengths=-1", "expected a number above 0"),
        ("target=1.5", "share from 0"),
        ("dropout=2", "share from 0 to 1"),
        ("learning_rate=0", "learning_rate"),
        ("depth=deep", "a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        with_changes(RECIPES["wen-rhn"].at("cpu"), [change])


def test_rows_follow_the_strengths() -> None:
    changed = with_changes(RECIPES["wen-rhn"].at("cpu"), ["strengths=0.01,0.5", "target=0"])
    assert [row.name for row in changed.nets] == ["dense", "iss-0.01", "iss-0.5"]


@pytest.mark.parametrize("most", [-1.0, 0.0, 1e-4, 1e-2, 1.0, 1e9])
def test_the_largest_harmless_threshold_is_the_last_of_the_grid_that_fits(most: float) -> None:
    net = model().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(10.0 ** torch.randint(-5, 1, weight.shape, generator=torch.Generator().manual_seed(1)))
    x = TEXT[:40].view(10, 4)
    whole = net(x)

    def harm(other: HighwayModel) -> float:
        return float((other(x) - whole).detach().abs().max())

    names = [name for name, weight in net.named_parameters() if name.startswith("layers") and weight.dim() == 2]
    names.append("head.weight")

    def cut(threshold: float) -> float:
        other = copy.deepcopy(net)
        with torch.no_grad():
            for name in names:
                weight = other.get_parameter(name)
                weight.mul_(weight.abs() >= threshold)
        return harm(other)

    fits = [t for t in GRID if cut(t) <= most]
    if fits:
        assert largest_harmless(net, x, lambda other: harm(other) <= most) == max(fits)
    else:
        with pytest.raises(RunError, match="set threshold"):
            largest_harmless(net, x, lambda other: harm(other) <= most)
