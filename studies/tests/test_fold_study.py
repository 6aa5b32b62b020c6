"""The study of folding: its series, its baselines, and the sizes at which its ways are compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsernn as srn
from sparsernn_studies.baselines import commonest_tag
from sparsernn_studies.counting import multiply_adds, recurrent_weights
from sparsernn_studies.runs import Run
from sparsernn_studies.stories.folding.nets import Characters
from sparsernn_studies.stories.folding.study import Fold, Settings, Small
from sparsernn_studies.tasks import narma
from sparsernn_studies.tasks.pos import Sentences


def test_narma_follows_its_equation_and_does_not_run_away():
    made = narma.series(500, seed=3)
    u = (made.u_N.double() + 1) / 4
    y = [0.0] * 10
    for t in range(10, 500):
        y.append(0.3 * y[-1] + 0.05 * y[-1] * sum(y[-10:]) + 1.5 * float(u[t - 10] * u[t - 1]) + 0.1)
    wanted = torch.tensor(y, dtype=torch.float64)
    wanted = (wanted - wanted.mean()) / wanted.std()
    assert torch.allclose(made.y_N.double(), wanted, atol=1e-5)
    assert float(u.min()) >= 0 and float(u.max()) <= 0.5


def test_the_error_of_a_series_is_nothing_for_its_own_values_and_one_for_its_mean():
    class Knows(nn.Module):
        def forward(self, u_TB1):
            places = (made.u_N[None, None, :] == u_TB1[:, :, 0, None]).int().argmax(-1)
            return made.y_N[places][..., None]

    class Mean(nn.Module):
        def forward(self, u_TB1):
            return torch.zeros_like(u_TB1) + made.y_N[10:].mean()

    made = narma.series(600, seed=0)
    assert narma.error(Knows(), made, length=60) < 1e-12
    assert narma.error(Mean(), made, length=60) == pytest.approx(1, abs=0.05)
    linear = narma.linear_error(narma.series(5000, 0), narma.series(2000, 1))
    assert 0.05 < linear < 0.5


def test_the_commonest_tag_is_each_words_own_or_the_commonest_of_all():
    train = Sentences((torch.tensor([0, 0, 0, 1]),), (torch.tensor([1, 1, 0, 2]),))
    test = Sentences((torch.tensor([0, 1, 3]),), (torch.tensor([1, 2, 1]),))
    assert commonest_tag(train, test) == 1
    test = Sentences((torch.tensor([0, 1, 3]),), (torch.tensor([0, 2, 2]),))
    assert commonest_tag(train, test) == pytest.approx(1 / 3)


def test_magnitude_leaves_the_share_that_is_asked_for(tmp_path):
    run = Run("fold", "smoke", 0, Settings(nets=("series",), hidden=48, series_steps=500), tmp_path, tmp_path)
    study, row = Fold(run), Small("series-magnitude-50-0", "series", "magnitude", 0.5)
    whole = study.of_width("series")
    srn.save(whole, study.file(study.named("series-dense")))
    small = study.start(row)
    assert recurrent_weights(small) / recurrent_weights(whole) == pytest.approx(0.5, abs=0.05)
    assert small.rnn.hidden_size < 24 and multiply_adds(small) < multiply_adds(whole)


def test_every_way_of_a_net_and_share_is_a_row_and_direct_nets_have_as_much_compute():
    rows = Fold.rows_of(Settings(nets=("lstm",), shares=(0.5,), further=(10,)))
    assert [row.name for row in rows] == [
        "lstm-baseline",
        "lstm-dense",
        "lstm-prune-50-0",
        "lstm-magnitude-50-0",
        "lstm-fold-50-0",
        "lstm-magnitude-50-10",
        "lstm-fold-50-10",
        "lstm-ramp-50-10",
        "lstm-folding-50-10",
        "lstm-direct-50-10",
    ]


@pytest.mark.parametrize("kind", ["lstm", "stack", "gru"])
def test_character_nets_carry_their_state(kind):
    task = Characters(kind, 8, 4, 16, 20_000)
    model = task.model(12).double()
    x_TB = task.example
    whole, _ = model(x_TB, model.zero_state(4))
    first, state = model(x_TB[:7], model.zero_state(4))
    second, _ = model(x_TB[7:], state)
    assert torch.allclose(whole, torch.cat([first, second]), atol=1e-12)
    assert torch.allclose(whole, model(x_TB), atol=1e-12)
