"""The training loop: seeded by one number, resumable at any step, the same bits again on the same machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsernn.learn.bayes import Bayes
from sparsernn.learn.sparsifier import Sparsifier

from . import checkpoint
from .errors import StudyError
from .progress import TrainingProgress
from .signals import Stopped, StopSignals

LOOK = 25  # steps between two looks at the loss where a look makes the host wait for the device

Sparsify = Callable[[nn.Module], Sparsifier]


class Diverged(StudyError):
    """The loss is no longer finite."""


@dataclass
class History:
    """Course of a training, a point every so many steps: plain lists that the report draws. `held_bytes`: what the
    training keeps from one step to the next: weights, gradients, the states of optimizer and sparsifier."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    density: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    held_bytes: int = 0

    def note(self, step: int, loss: float, rate: float, density: float) -> None:
        self.step.append(step)
        self.loss.append(loss)
        self.rate.append(rate)
        self.density.append(density)


class Loop:
    """Trains `model` in place by `settings`, as `train` says; what differs for other kinds of training is overridden.

    `fields` are those of a checkpoint, `free` the settings that a resumed training may change.
    """

    fields: ClassVar[tuple[str, ...]] = ("settings", "step", "state", "model", "optimizer", "sparsifier", "random")
    free: ClassVar[tuple[str, ...]] = ("device", "checkpoint_every")
    quiet: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        objective: Any,
        settings: Any,
        *,
        seed: int = 0,
        sparsify: Sparsify | None = None,
        folder: Path | None = None,
        begin: Path | None = None,
        milestones: Mapping[int, Path] | None = None,
        until: Callable[[int], bool] | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=settings.device == "cpu")
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.model, self.objective, self.settings, self.seed = model.to(self.device).train(), objective, settings, seed
        self.milestones, self.until = milestones or {}, until
        self.file = None if folder is None else folder / "checkpoint.safetensors"
        self.step, self.enough = 0, False
        self.state: Any = None
        self.history = History()
        self.sparsifier: Sparsifier | None = None
        self.saved: Path | None = None
        self._unseen: list[Tensor] = []
        torch.manual_seed(seed)
        self.optimizer = self.new_optimizer()
        self.parallel = self.accelerator.prepare_model(model) if self.world > 1 else model
        self._begin(self.file if self.file is not None and self.file.exists() else begin, sparsify)

    @property
    def goal(self) -> int:
        """Steps that the training will make."""
        return self.settings.steps

    @property
    def ended(self) -> bool:
        return self.enough or self.step >= self.settings.steps

    def new_optimizer(self) -> torch.optim.Optimizer:
        s, parameters = self.settings, self.model.parameters()
        both = {"lr": s.learning_rate, "weight_decay": s.weight_decay}
        if s.optimizer == "rmsprop":
            return torch.optim.RMSprop(parameters, **both)
        if s.optimizer == "adadelta":
            return torch.optim.Adadelta(parameters, **both)
        return torch.optim.AdamW(parameters, betas=(0.9, 0.99), fused=self.device.type in ("cpu", "cuda"), **both)

    def rate(self, first: float) -> float:
        """The learning rate of this step, for parameters whose learning rate was `first` at the start."""
        return first * self.settings.rate(self.step)

    def forward(self) -> tuple[Tensor, Tensor]:
        """What this step minimises, and the loss that is shown and has to be finite: scalars."""
        batch = moved(self.objective.batch(self.step, self.rank, self.world), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            loss, self.state = self.objective.loss(self.parallel, batch, self.state)
        return loss, loss

    def clip(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def after(self, loss: Tensor) -> None:
        """What follows a step whose shown loss was `loss`."""
        if self.step in self.milestones:
            self.save(self.milestones[self.step])
        if self.until is not None and not self.ended:
            self.enough = self.until(self.step)

    def train(self, name: str) -> None:
        """Go on to the end."""
        quiet = self.quiet or self.rank > 0
        with TrainingProgress(name, self.goal, self.step, quiet=quiet) as progress, StopSignals() as stop:
            started = time.monotonic() - self.history.seconds
            started_cpu = time.process_time() - self.history.cpu_seconds
            while not self.ended:
                loss = self.learn()
                self.history.seconds = time.monotonic() - started
                self.history.cpu_seconds = time.process_time() - started_cpu
                if self.device.type == "cpu" or self.step % LOOK == 0:
                    self._look(progress)
                self.after(loss)
                if self.ended:
                    self._look(progress)
                if stop.signal or self.ended or self.step % self.settings.checkpoint_every == 0:
                    self.save(self.file)
                if stop.signal and not self.ended:
                    raise Stopped(stop.signal, name, self.step, self.file)
        self.history.held_bytes = self.held_bytes()
        if self.sparsifier is not None:
            self.sparsifier.finish()
        # The others go on to read what the main process has just written.
        self.accelerator.wait_for_everyone()

    def held_bytes(self) -> int:
        """Bytes of what has to be kept between two steps."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        states = [self.optimizer.state_dict(), self.sparsifier and self.sparsifier.state_dict()]
        kept = [*self.model.parameters(), *self.model.buffers(), *trained, *tree_leaves(states)]
        return sum(each.nbytes for each in kept if isinstance(each, Tensor))

    def learn(self) -> Tensor:
        """Take one step and return its shown loss."""
        loss, shown = self.forward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(group.setdefault("initial_lr", group["lr"]))
        self.optimizer.zero_grad()
        loss.backward()
        if isinstance(self.sparsifier, Bayes):  # clips what it adds as well
            self.sparsifier.max_norm = self.settings.clip
        else:
            self.clip()
        self.optimizer.step()
        self.step += 1
        self._unseen.append(shown.detach())
        return self._unseen[-1]

    def _look(self, progress: TrainingProgress) -> None:
        """Check the losses since the last look, keep and show the figures."""
        values = [float(loss) for loss in self._unseen]
        self._unseen.clear()
        first = self.step - len(values) + 1
        for step, value in enumerate(values, first):
            if not math.isfinite(value):
                good = "there is no checkpoint yet" if self.saved is None else f"last good checkpoint: {self.saved}"
                raise Diverged(
                    f"The loss is {value} at step {step} of {self.goal} ({good}).\n"
                    "Lower the learning rate or the clipping threshold, or take float32."
                )
        every = max(1, self.goal // 200)
        rate = float(self.optimizer.param_groups[0]["lr"])
        if self.step // every > (first - 1) // every:
            density = self._density()
            self.history.note(self.step, values[-1], rate, 1.0 if density is None else density)
        if values and progress.due(self.step):
            progress.show(min(self.step, self.goal), values[-1], rate, self._density())

    def _density(self) -> float | None:
        return None if self.sparsifier is None else self.sparsifier.density()

    def _begin(self, found: Path | None, sparsify: Sparsify | None) -> None:
        """Attach the sparsifier and take over the checkpoint `found`, if there is one."""
        kept: Mapping[str, Any] = {}
        if found is not None:
            kept = checkpoint.read(found)
            with checkpoint.resuming(found):
                self._check(found, kept)
                self.model.load_state_dict(kept["model"])
        # A sparsifier may add parameters to the optimizer, which a saved state has to know.
        if sparsify is not None:
            self.sparsifier = sparsify(self.model).attach(self.optimizer)
        # Random numbers last, since tracing and the building of modules may draw some.
        if found is None:
            torch.manual_seed(self.seed)
            return
        with checkpoint.resuming(found):
            self.recall(kept)
            checkpoint.set_random_state(kept["random"])
            self.saved = found

    def save(self, path: Path | None) -> None:
        """Write the checkpoint, unless the weights are not finite: the last good one then stays."""
        if path is None or not self.accelerator.is_main_process:
            return
        if all(bool(p.isfinite().all()) for p in self.model.parameters()):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write(path, self.remember())
            self.saved = path

    def remember(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "settings": self.agreed(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": None if self.sparsifier is None else self.sparsifier.state_dict(),
            "state": self.state,
            "history": asdict(self.history),
            "random": checkpoint.random_state(),
        }

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, its weights and random numbers apart."""
        self.optimizer.load_state_dict(kept["optimizer"])
        self.step = int.__index__(kept["step"])  # TypeError for anything else
        self.state = moved(kept["state"], self.device)
        self.history = History(**kept.get("history", {}))
        if self.sparsifier is not None and kept["sparsifier"] is not None:
            self.sparsifier.load_state_dict(kept["sparsifier"])

    def agreed(self) -> dict[str, Any]:
        """What a checkpoint must agree with: all that the course depends on."""
        settings = {"seed": self.seed, **asdict(self.settings)}
        return {key: value for key, value in settings.items() if key not in self.free}

    def _check(self, path: Path, kept: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another training, before anything is changed."""
        missing = set(self.fields) - set(kept)
        if missing:
            raise checkpoint.CheckpointError(f"{path} lacks the fields {', '.join(sorted(missing))}; delete it.")
        mine = self.agreed()
        for key in mine:
            if kept["settings"].get(key) != mine[key]:
                raise checkpoint.CheckpointError(
                    f"{path} is of a training with {key} = {kept['settings'].get(key)!r}, this one has {mine[key]!r}.\n"
                    "Use the same settings to resume, or another folder to begin anew."
                )
        shapes = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        for name, value in kept["model"].items():
            if shapes.get(name) != tuple(value.shape):
                raise checkpoint.CheckpointError(
                    f"{path} is of another model: {name} has shape {tuple(value.shape)}, here {shapes.get(name)}.\n"
                    "Use another folder to begin anew."
                )


def moved(value: Any, device: torch.device) -> Any:
    """`value` with the tensors in its tuples on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    return tuple(moved(v, device) for v in value) if isinstance(value, tuple) else value
