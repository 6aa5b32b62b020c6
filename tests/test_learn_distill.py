"""Distillation: the loss against formulas written out, and students that come to give what their teacher gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import inputs_of_recall, loss_of_recall, trained_recall
from sparsernn.learn.folded import Folded


def test_the_losses_are_their_formulas():
    source = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(4, 3, 5, generator=source).double() for _ in range(2))
    state = torch.randn(2, 7, generator=source).double()
    wanted = ((ours - theirs) ** 2).mean() / ((theirs - theirs.mean()) ** 2).mean()
    torch.testing.assert_close(srn.distillation_loss(ours, theirs), wanted)
    torch.testing.assert_close(srn.distillation_loss((ours, [state]), (theirs, [state])), wanted / 2)
    p, q = (torch.softmax(t / 2, -1) for t in (theirs, ours))
    divergence = 4 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(srn.distillation_loss((ours, state), (theirs, state), "logits", 2.0), divergence)


def halves() -> tuple[nn.Module, nn.Module, Folded]:
    teacher = trained_recall()
    folded = srn.fold(teacher, inputs_of_recall(20), 0.3)
    return srn.compact(folded.model, inputs_of_recall(1)[0]), teacher, folded


def test_a_folded_student_comes_nearer_its_teacher_without_labels():
    small, teacher, folded = halves()
    before, weights = loss_of_recall(small), copy.deepcopy(teacher.state_dict())
    kept = {"rnn": ~folded.removed["rnn.l0"]}
    for options in ({}, {"loss": "logits"}, {"hidden": kept}):
        student = copy.deepcopy(small)
        found = srn.distill(student, teacher, inputs_of_recall(10), steps=25, **options)
        assert found is student and loss_of_recall(student) < 0.8 * before
    assert all(torch.equal(weights[name], value) for name, value in teacher.state_dict().items())
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))


def test_one_step_is_the_users_own_step():
    """By an optimizer of one's own, with labels in the batches and hidden states compared."""
    small, teacher, folded = halves()
    x, index = inputs_of_recall(1)[0], torch.nonzero(~folded.removed["rnn.l0"])[:, 0]
    student, other = copy.deepcopy(small), copy.deepcopy(small)
    srn.distill(
        student, teacher, [[x, x]], 1, hidden={"rnn": index}, optimizer=torch.optim.SGD(student.parameters(), 0.1)
    )
    loss = srn.distillation_loss(other(x), teacher(x).detach())
    states, wanted = other.rnn(other.embedding(x))[0], teacher.rnn(teacher.embedding(x))[0][..., index]
    (loss + srn.distillation_loss(states, wanted.detach())).backward()
    torch.optim.SGD(other.parameters(), 0.1).step()
    for a, b in zip(student.parameters(), other.parameters()):
        torch.testing.assert_close(a, b)


def test_zeros_are_held_by_a_sparsifier_on_the_optimizer():
    teacher = trained_recall()
    sparse = srn.fold(teacher, inputs_of_recall(20), 0.3, level="weight")
    optimizer = torch.optim.Adam(sparse.model.parameters(), 0.002)
    holder = srn.Prune(sparse.model, None, 1 - sparse.share, scope="model")
    holder.step()
    holder.attach(optimizer)
    before = loss_of_recall(sparse.model)
    srn.distill(sparse.model, teacher, inputs_of_recall(10), 30, loss="logits", optimizer=optimizer)
    assert loss_of_recall(holder.finish()) < before
    assert all(torch.equal(sparse.model.get_parameter(name) == 0, gone) for name, gone in sparse.removed.items())


def test_bad_input_is_told():
    small, teacher, _ = halves()
    x = inputs_of_recall(2)
    nan = copy.deepcopy(teacher)
    with torch.no_grad():
        nan.head.bias[0] = torch.nan
    for call, kind, words in (
        (lambda: srn.distill(small, teacher, x, 0), ValueError, "steps is 0"),
        (lambda: srn.distill(small, teacher, []), ValueError, "batches is empty"),
        (lambda: srn.distill(small, teacher, (b for b in x), 5), ValueError, "ended after 2 of 5 steps"),
        (lambda: srn.distill(small, teacher, x[0]), TypeError, "batches is Tensor"),
        (lambda: srn.distill(small, teacher, x, loss="mse"), ValueError, "loss is 'mse'"),
        (
            lambda: srn.distill(small, teacher, x, hidden={"lstm": torch.arange(3)}),
            ValueError,
            "no module of the student",
        ),
        (lambda: srn.distill(small, teacher, x, hidden={"rnn": torch.arange(3)}), ValueError, "the student gives"),
        (lambda: srn.distill(small, nan, x, 1), ValueError, "loss of step 1 is not finite"),
        (lambda: srn.distill(small, nn.Linear(3, 3), x, 1), ValueError, "could not run"),
    ):
        with pytest.raises(kind, match=words):
            call()
    assert not any(module._forward_hooks for module in (*small.modules(), *teacher.modules()))
