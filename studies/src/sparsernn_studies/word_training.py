"""Training of word models by SGD in epochs over a text: stateful windows, NT-ASGD, penalties; resumable to the bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsernn.learn.averaged import SNTASGD, exchanged
from sparsernn.learn.sparsifier import Sparsifier

from . import checkpoint
from .highway_model import HighwayModel
from .loop import Loop
from .regularisation import activation_penalty, window_length
from .settings import settings
from .tasks.text import bits_per_symbol, cut
from .word_model import StackedLSTM, WordModel

log = logging.getLogger("sparsernn")


@settings
class WordTraining:
    """SGD with `momentum`; the rate holds for `hold` epochs and is then multiplied by `decay` every `decay_every` ones.

    `patience`: average the weights (ASGD) from the epoch on whose validation loss is not below the best of the epochs
    before the last `patience` ones (NT-ASGD, Merity et al., algorithm 1); 0 never, `averaged` from the start. With a
    sparsifier each weight is averaged from when it grew (SNT-ASGD, Liu et al., arXiv 2101.09048).
    `bptt`: length of a window, random around it with `vary`, and the rate then goes with the length.
    `alpha`, `beta`: strengths of AR and TAR. `steps`: stop after so many, 0 never.
    `sum_over_time`: the loss is summed over a window's time steps and averaged over the batch, as published strengths
    of penalties and clipping thresholds of Zaremba's nets want it. `keep_best`: the result is the net after the epoch
    of the least validation loss, among those since the sparsifier's masks last changed. `precision` "bfloat16" takes
    the products with the vocabulary's matrix in bfloat16; sums, states and all other products stay in float32.
    """

    epochs: int
    learning_rate: float
    batch: int = 20
    bptt: int = 70
    vary: bool = False
    momentum: float = 0.0
    hold: int = 1
    decay: float = 1.0
    decay_every: int = 1
    clip: float = 0.25
    weight_decay: float = 0.0
    alpha: float = 0.0
    beta: float = 0.0
    patience: int = 0
    averaged: bool = False
    sum_over_time: bool = False
    keep_best: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    steps: int = 0
    checkpoint_every: int = 200
    device: Literal["cpu", "any"] = "cpu"

    def check(self) -> None:
        ones = (self.epochs, self.batch, self.bptt, self.checkpoint_every, self.decay_every)
        if min(ones) < 1 or min(self.steps, self.patience, self.hold) < 0:
            raise ValueError(
                "epochs, batch, bptt, checkpoint_every and decay_every are at least 1, steps, patience and hold at "
                "least 0."
            )
        if not (self.learning_rate > 0 and self.clip > 0 and self.decay > 0):
            raise ValueError("learning_rate, clip and decay are numbers above 0.")

    def rate(self, epoch: int) -> float:
        """The learning rate of `epoch`, counted from 0."""
        return self.learning_rate * self.decay ** max(0, (epoch + self.decay_every - self.hold) // self.decay_every)


_COURSE = ("epoch", "place", "averaging", "losses", "kept", "total", "count", "train_perplexity", "held", "settled")


class WordTrainer(Loop):
    """One training of `model` on `train_N`, watched on `valid_N`; `folder` receives the checkpoint it resumes from.

    `sparsify` makes the sparsifier from the model and the number of steps that the training will make. It is attached
    to the optimizer, and its penalty is part of the loss, so that both gradients are clipped together (Wen et al.,
    arXiv 1709.05027).
    """

    fields = (*Loop.fields, *_COURSE)
    free = (*Loop.free, "steps", "epochs")  # without a sparsifier

    def __init__(
        self,
        model: WordModel | StackedLSTM | HighwayModel,
        train_N: Tensor,
        valid_N: Tensor | None,
        settings: WordTraining,
        seed: int,
        folder: Path,
        sparsify: Callable[[nn.Module, int], Sparsifier] | None = None,
    ) -> None:
        length = (len(train_N) - 1) // settings.batch
        if length < 5:
            raise ValueError(f"A text of {len(train_N)} words is too short for {settings.batch} streams.")
        if sparsify is not None and settings.averaged:
            raise ValueError("averaged changes the optimizer, which a sparsifier cannot follow; set patience instead.")
        self.x_NB = train_N[: length * settings.batch].view(settings.batch, length).t().contiguous()
        self.y_NB = train_N[1 : length * settings.batch + 1].view(settings.batch, length).t().contiguous()
        self.valid_N, self.best = valid_N, folder / "best.safetensors"
        self.epoch, self.place, self.averaging = 0, 0, settings.averaged
        self.losses: list[float] = []  # validation loss in bits of each epoch
        self.kept: list[float] = []  # density after each epoch, if there is a sparsifier
        self.total, self.count, self.read = 0.0, 0, 0  # nats and words of the running epoch, words of the last window
        self.train_perplexity: list[float] = []
        self.held, self.settled = 0, 0  # weights that masks held at zero after the last epoch; since which epoch
        self.sparse = sparsify is not None
        learner = None if sparsify is None else lambda model: sparsify(model, self.goal)
        super().__init__(model, None, settings, seed=seed, sparsify=learner, folder=folder)
        if self.saved is None:
            self.best.unlink(missing_ok=True)

    @property
    def goal(self) -> int:
        """Steps that the training will make; an estimate where windows vary and `steps` sets no end."""
        s = self.settings
        all_epochs = s.epochs * -(-len(self.x_NB) // s.bptt)
        return min(s.steps, all_epochs) if s.steps and not s.vary else s.steps or all_epochs

    @property
    def ended(self) -> bool:
        s = self.settings
        return self.epoch >= s.epochs or 0 < s.steps <= self.step

    def train(self, name: str) -> None:
        super().train(name)
        if self.best.is_file() and self.epoch >= self.settings.epochs and self._held() == self.held:
            self.model.load_state_dict(checkpoint.read(self.best)["model"])

    def averaged_weights(self) -> AbstractContextManager[None]:
        """The averaged weights in the model's place, if averaging has begun."""
        if isinstance(self.optimizer, SNTASGD):
            return self.optimizer.averaged()
        state = self.optimizer.state
        return exchanged(self.model.parameters() if self.averaging else (), lambda p: state[p].get("ax", p))

    def new_optimizer(self) -> torch.optim.Optimizer:
        s, parameters = self.settings, self.model.parameters()
        if self.sparse and s.patience:  # which the sparsifier follows from the first step to the last
            decay = {"momentum": s.momentum, "weight_decay": s.weight_decay}
            return SNTASGD(parameters, s.learning_rate, patience=s.patience, **decay)
        if self.averaging:
            return torch.optim.ASGD(parameters, s.learning_rate, lambd=0.0, t0=0.0, weight_decay=s.weight_decay)
        return torch.optim.SGD(parameters, s.learning_rate, momentum=s.momentum, weight_decay=s.weight_decay)

    def rate(self, first: float) -> float:
        s = self.settings
        return s.rate(self.epoch) * (self.read // s.batch / s.bptt if s.vary else 1.0)

    def forward(self) -> tuple[Tensor, Tensor]:
        s = self.settings
        wanted = window_length(s.bptt, self.step, self.seed) if s.vary else s.bptt
        begin, self.place = self.place, min(self.place + wanted, len(self.x_NB))
        x_TB, y_TB = (part[begin : self.place].to(self.device) for part in (self.x_NB, self.y_NB))
        state = self.model.zero_state(s.batch) if self.state is None else self.state
        dropped, raw, state = self.model.run(x_TB, state)
        nats = self.model.nats(dropped, y_TB, torch.bfloat16 if s.precision == "bfloat16" else None)
        objective = nats * len(x_TB) if s.sum_over_time else nats
        if s.alpha or s.beta:
            objective = objective + activation_penalty(dropped, raw, s.alpha, s.beta)
        if self.sparsifier is not None:
            objective = objective + self.sparsifier.penalty()
        self.state, self.read = cut(state), y_TB.numel()
        return objective, nats

    def after(self, loss: Tensor) -> None:
        self.total, self.count = self.total + float(loss) * self.read, self.count + self.read
        if self.place >= len(self.x_NB):
            self._end_of_epoch()

    def _end_of_epoch(self) -> None:
        s = self.settings
        self.train_perplexity.append(math.exp(self.total / self.count))
        if self.valid_N is not None:
            with self.averaged_weights():
                bits = bits_per_symbol(self.model, self.valid_N, streams=10, window=s.bptt)
            if isinstance(self.optimizer, SNTASGD):
                self.averaging = self.optimizer.look(bits)
            elif s.patience and not self.averaging and len(self.losses) > s.patience:
                self.averaging = bits > min(self.losses[: -s.patience])
                self.optimizer = self.new_optimizer() if self.averaging else self.optimizer
            self.losses.append(bits)
            if (held := self._held()) != self.held:  # what was best before has weights that are gone by now
                self.held, self.settled = held, len(self.losses) - 1
                self.best.unlink(missing_ok=True)
            if s.keep_best and bits == min(self.losses[self.settled :]):
                self.best.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.write(self.best, {"model": self.model.state_dict()})
            log.info("epoch %d: valid perplexity %.2f", self.epoch + 1, 2**bits)
        if self.sparsifier is not None:
            self.kept.append(self.sparsifier.density())
        self.epoch, self.place, self.total, self.count, self.state = self.epoch + 1, 0, 0.0, 0, None

    def _held(self) -> int:
        """How many weights the sparsifier's masks hold at zero."""
        masks = {} if self.sparsifier is None else self.sparsifier.state_dict()["masks"]
        return sum(int((~mask).sum()) for mask in masks.values())

    def agreed(self) -> dict[str, Any]:
        # The course of a sparsifier was laid for so many steps.
        return super().agreed() | ({"steps": self.goal} if self.sparse else {})

    def remember(self) -> dict[str, Any]:
        return super().remember() | {name: getattr(self, name) for name in _COURSE}

    def recall(self, kept: Mapping[str, Any]) -> None:
        begun = self.averaging
        for name in _COURSE:
            setattr(self, name, kept[name])
        if self.averaging != begun and not self.sparse:  # another optimizer than at the start
            self.optimizer = self.new_optimizer()
        super().recall(kept)
