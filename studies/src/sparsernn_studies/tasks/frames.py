"""Classification of sequences of feature frames: batches of like lengths, the mean of the frames' logits, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation import evaluating
from .text import wide

JITTER = 10  # frames: how far apart in length the sequences of a batch may be, about


@dataclass(frozen=True)
class Sequences:
    """Sequences of frames, each (T, F) float32, and their classes_N."""

    frames: Sequence[Tensor]
    classes_N: Tensor

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """x_TBF (zeros after each end), lengths_B, classes_B."""
        x_TBF = nn.utils.rnn.pad_sequence([self.frames[n] for n in chosen])
        lengths_B = torch.tensor([len(self.frames[n]) for n in chosen])
        return x_TBF, lengths_B, self.classes_N[torch.as_tensor(chosen)]


def mean_logits(logits_TBC: Tensor, lengths_B: Tensor) -> Tensor:
    """The mean over each sequence's own frames (B, C). A stream gets the same as a running mean."""
    own_TB1 = (torch.arange(len(logits_TBC), device=logits_TBC.device)[:, None] < lengths_B)[..., None]
    return (logits_TBC * own_TB1).sum(0) / lengths_B[:, None]


@dataclass(frozen=True)
class FrameClassification:
    """The training objective: mean cross entropy (nats) of the class by the mean of the frames' logits.

    `variants`: the examples in several forms each (augmented); every epoch takes one of each at random, in an order
    of its own, both given by `seed` and the epoch alone. The model maps x_TBF to logits_TBC and looks at no later
    frame, so that padding changes nothing. `masked`: each of two stretches of neighbouring features is zero, their
    mean, in a whole sequence; a stretch is at most so long (Park et al., arXiv 1904.08779).
    """

    variants: Sequence[Sequences]
    batch_size: int
    seed: int = 0
    masked: int = 0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of `step`: x_TBF, lengths_B, classes_B, of like lengths."""
        classes_N = self.variants[0].classes_N
        each = max(1, len(classes_N) // self.batch_size)
        epoch, within = divmod(step, each)
        generator = torch.Generator().manual_seed(self.seed * 7919 + epoch)
        form_N = torch.randint(len(self.variants), classes_N.shape, generator=generator)
        frames = [self.variants[form].frames[n] for n, form in enumerate(form_N.tolist())]
        lengths_N = torch.tensor([float(len(x)) for x in frames])
        order = torch.argsort(lengths_N + JITTER * torch.rand(lengths_N.shape, generator=generator))
        place = int(torch.randperm(each, generator=generator)[within])
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size][rank::world]
        x_TBF, lengths_B, classes_B = Sequences(frames, classes_N).batch(chosen.tolist())
        if self.masked:
            x_TBF = x_TBF.masked_fill(self._masks(len(classes_B), x_TBF.shape[2], step), 0.0)
        return x_TBF, lengths_B, classes_B

    def _masks(self, count: int, features: int, step: int) -> Tensor:
        """Which features (count, features) are masked at `step`."""
        generator = torch.Generator().manual_seed(self.seed * 7919 + step)
        length_2B1, place_2B1 = torch.rand(2, 2, count, 1, generator=generator)
        length_2B1 = length_2B1 * self.masked
        begin_2B1 = place_2B1 * (features - length_2B1)
        place_F = torch.arange(features)
        return ((place_F >= begin_2B1) & (place_F < begin_2B1 + length_2B1)).any(0)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TBF, lengths_B, classes_B = batch
        return nn.functional.cross_entropy(mean_logits(wide(model(x_TBF)), lengths_B), classes_B), None


@dataclass(frozen=True)
class Distillation(FrameClassification):
    """The same with `share` of the loss from a trained `teacher`: how far its classes' probabilities are (Hinton et
    al., arXiv 1503.02531: divergence of the softened outputs, nats, times the temperature squared).

    What a net that becomes small learns is then what the large one does, on augmented voices too.
    """

    teacher: nn.Module = field(default_factory=nn.Identity)
    share: float = 0.9
    temperature: float = 2.0

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        x_TBF, lengths_B, classes_B = batch
        own_BC = mean_logits(wide(model(x_TBF)), lengths_B)
        with torch.no_grad():
            taught_BC = mean_logits(wide(self.teacher.to(x_TBF.device)(x_TBF)), lengths_B)
        soft_BC = (own_BC / self.temperature).log_softmax(1)
        target_BC = (taught_BC / self.temperature).log_softmax(1)
        apart = nn.functional.kl_div(soft_BC, target_BC, log_target=True, reduction="batchmean")
        right = nn.functional.cross_entropy(own_BC, classes_B)
        return (1 - self.share) * right + self.share * self.temperature**2 * apart, None


def labels(model: nn.Module, sequences: Sequences, *, batch: int = 1) -> Tensor:
    """The class of each sequence (N,), `batch` of them in a call. The model's training mode is left as it was."""
    found = []
    with evaluating(model):
        for begin in range(0, len(sequences.frames), batch):
            chosen = range(begin, min(begin + batch, len(sequences.frames)))
            x_TBF, lengths_B, _ = sequences.batch(chosen)
            found.append(mean_logits(model(x_TBF), lengths_B).argmax(1))
    return torch.cat(found)


def accuracy(model: nn.Module, sequences: Sequences, *, batch: int = 100) -> float:
    """Share of the sequences whose class is right."""
    return float((labels(model, sequences, batch=batch) == sequences.classes_N).double().mean())
