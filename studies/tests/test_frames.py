"""Sequences of frames with a label each: augmented, padded, masked, taught."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sounds import noise
from sparsernn_studies.models import FrameClassifier
from sparsernn_studies.tasks.augment import augmented
from sparsernn_studies.tasks.frames import Distillation, FrameClassification, Sequences, accuracy, labels, mean_logits
from sparsernn_studies.tasks.log_mel import (
    MELS,
    RANGE,
)

pytestmark = pytest.mark.usefixtures("one_thread", "no_handlers")


def test_augmentation_is_decided_by_the_seed_and_keeps_the_form():
    samples = noise(2_000)
    first, again, other = (augmented(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first[:5], other[:5])
    for seed in range(20):
        made = augmented(noise(600, seed), np.random.default_rng(seed))
        assert made.shape[1] == MELS and len(made) >= 1 and np.isfinite(made).all()
        assert made.max() <= 0 and made.min() >= -RANGE


def random_sequences(count: int = 40, seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 60, (count,), generator=generator).tolist()
    frames = [torch.randn(length, 5, generator=generator) for length in lengths]
    return Sequences(frames, torch.randint(3, (count,), generator=generator))


def test_padding_and_the_number_in_a_call_change_no_label():
    sequences = random_sequences()
    torch.manual_seed(0)
    model = FrameClassifier(5, (6, 4), 3, dropout=0.5).double()
    doubled = Sequences([x.double() for x in sequences.frames], sequences.classes_N)
    one = labels(model, doubled)
    assert torch.equal(labels(model, doubled, batch=7), one) and model.training
    right = sum(
        int(model.eval()(x[:, None])[:, 0].mean(0).argmax()) == int(y)
        for x, y in zip(doubled.frames, doubled.classes_N)
    )
    assert accuracy(model, doubled) == right / 40
    x_TBF, lengths_B, _ = doubled.batch([3, 8])
    pooled_BC = mean_logits(model(x_TBF), lengths_B)
    for n, sequence in enumerate((3, 8)):
        alone_TC = model(doubled.frames[sequence][:, None])[:, 0]
        torch.testing.assert_close(pooled_BC[n], alone_TC.mean(0), rtol=1e-12, atol=1e-12)


def test_an_epoch_takes_every_example_once_in_one_of_its_forms():
    forms = [random_sequences(), random_sequences()]
    forms[1] = Sequences([x + 100 for x in forms[0].frames], forms[0].classes_N)
    objective = FrameClassification(forms, batch_size=10, seed=3)
    seen, shifted, spans = [], 0, []
    for step in range(4):
        x_TBF, lengths_B, classes_B = objective.batch(step)
        assert all(torch.equal(a, b) for a, b in zip(objective.batch(step), (x_TBF, lengths_B, classes_B)))
        spans.append(int(lengths_B.max() - lengths_B.min()))
        for n, length in enumerate(lengths_B.tolist()):
            own = x_TBF[:length, n]
            shifted += bool(own.mean() > 50)
            plain = own - 100 * (own.mean() > 50)
            (which,) = [m for m, x in enumerate(forms[0].frames) if len(x) == length and (x - plain).abs().max() < 1e-3]
            assert classes_B[n] == forms[0].classes_N[which] and (x_TBF[length:, n] == 0).all()
            seen.append(which)
    assert sorted(seen) == list(range(40)) and 8 < shifted < 32
    assert sum(spans) / 4 < 35  # of 57
    first = [objective.batch(step)[2].tolist() for step in range(4)]
    assert first != [objective.batch(step)[2].tolist() for step in range(4, 8)]


def test_masks_hide_whole_bands_of_a_sequence():
    ones = Sequences([torch.ones(4, 20) for _ in range(64)], torch.zeros(64, dtype=torch.long))
    x_TBF, _, _ = FrameClassification([ones], 64, masked=6).batch(0)
    hidden_B = (x_TBF == 0).all(0).sum(1)
    assert torch.equal((x_TBF == 0).any(0), (x_TBF == 0).all(0))
    assert 0 < hidden_B.double().mean() < 12 and hidden_B.max() <= 14 and len(set(hidden_B.tolist())) > 3


def test_a_teacher_draws_its_pupil_to_its_own_outputs():
    torch.manual_seed(0)
    frames = Sequences([torch.randn(n % 5 + 3, 6) for n in range(20)], torch.arange(20) % 4)
    pupil, teacher = nn.Linear(6, 4), nn.Linear(6, 4)
    plain = FrameClassification([frames], 10)
    batch = plain.batch(0)
    right = plain.loss(pupil, batch, None)[0]
    alone = Distillation([frames], 10, teacher=teacher, share=0.0).loss(pupil, batch, None)[0]
    assert torch.equal(alone, right)
    own = Distillation([frames], 10, teacher=copy.deepcopy(pupil), share=0.9).loss(pupil, batch, None)[0]
    assert torch.allclose(own, 0.1 * right)  # nothing to learn from itself

    taught = Distillation([frames], 10, teacher=teacher, share=0.9, temperature=1.0).loss(pupil, batch, None)[0]
    ours, theirs = (mean_logits(net(batch[0]), batch[1]).softmax(1) for net in (pupil, teacher))
    apart = (theirs * (theirs / ours).log()).sum(1).mean()
    assert torch.allclose(taught, 0.1 * right + 0.9 * apart)
    taught.backward()
    assert pupil.weight.grad is not None and teacher.weight.grad is None
