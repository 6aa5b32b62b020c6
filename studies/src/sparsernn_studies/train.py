"""The training loop: seeded by one number, resumable at any step, the same bits again on the same machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sparsernn.learn.bayes import Bayes
from sparsernn.learn.sparsifier import Sparsifier

from . import checkpoint
from .errors import StudyError
from .progress import TrainingProgress
from .settings import Count, Positive, Whole, settings
from .signals import Stopped, StopSignals

LOOK = 25  # steps between two looks at the loss where a look makes the host wait for the device


class Objective(Protocol):
    """What is trained: `batch` gives the data of a step, which may depend on nothing but the step's number."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any: ...

    def loss(self, model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]: ...


@settings
class Training:
    """How long and how fast: AdamW, RMSprop or Adadelta, linear warm-up, cosine to `final_rate` of the learning rate.

    `precision` "bfloat16" runs forward and backward products in bfloat16 (autocast), weights stay in float32.
    `device` "any" takes a GPU if there is one.
    """

    steps: Count
    learning_rate: Positive = 3e-3
    warm_up: Whole = 100
    final_rate: float = 0.02
    weight_decay: float = 0.0
    clip: Positive = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "any"] = "cpu"
    checkpoint_every: Count = 500
    optimizer: Literal["adamw", "rmsprop", "adadelta"] = "adamw"

    def rate(self, step: int) -> float:
        """Share of the learning rate that holds at `step`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        share = min(1.0, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * share))


class Diverged(StudyError):
    """The loss is no longer finite."""


@dataclass
class History:
    """Course of a training, a point every so many steps: plain lists that the report draws."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    density: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def note(self, step: int, loss: float, rate: float, density: float) -> None:
        self.step.append(step)
        self.loss.append(loss)
        self.rate.append(rate)
        self.density.append(density)


Sparsify = Callable[[nn.Module], Sparsifier]


def train(
    model: nn.Module,
    objective: Objective,
    settings: Training,
    *,
    name: str = "training",
    seed: int = 0,
    sparsify: Sparsify | None = None,
    folder: Path | None = None,
    begin: Path | None = None,
    milestones: Mapping[int, Path] | None = None,
    until: Callable[[int], bool] | None = None,
) -> History:
    """Train `model` in place for `settings.steps` steps and return the course.

    `sparsify` makes the sparsifier, which is attached to the optimizer. `folder` receives `checkpoint.safetensors`,
    from which a call with the same arguments goes on; `begin` is a checkpoint to start from where `folder` has none
    (a training without a sparsifier, say). `milestones`: step -> where a copy of the checkpoint is to be kept.
    `until` is asked after each step, with the number of steps done; training ends early where it says yes.

    Raises Diverged when the loss is not finite (the message names step and last good checkpoint), Stopped after
    SIGTERM or Ctrl-C (a good checkpoint is then in `folder`), CheckpointError where a checkpoint is not of this
    training. The model then keeps what it has learnt so far.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=settings.device == "cpu")
    rank, world = accelerator.process_index, accelerator.num_processes
    model.to(accelerator.device).train()
    torch.manual_seed(seed)
    raw = _optimizer(model, settings, accelerator.device)
    parallel = accelerator.prepare_model(model) if world > 1 else model
    loop = _Loop(model, raw, settings, seed, folder if accelerator.is_main_process else None)
    loop.resume(folder, begin, sparsify)
    optimizer = accelerator.prepare_optimizer(raw)
    low = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with TrainingProgress(name, settings.steps, loop.step, quiet=rank > 0) as progress, StopSignals() as stop:
        started = time.monotonic() - loop.history.seconds
        started_cpu = time.process_time() - loop.history.cpu_seconds
        while loop.step < settings.steps:
            batch = _to(objective.batch(loop.step, rank, world), accelerator.device)
            with low:
                loss, loop.state = objective.loss(parallel, batch, loop.state)
            optimizer.zero_grad()
            accelerator.backward(loss)
            if isinstance(loop.sparsifier, Bayes):  # clips what it adds as well
                loop.sparsifier.max_norm = settings.clip
            else:
                accelerator.clip_grad_norm_(parallel.parameters(), settings.clip)
            optimizer.step()
            loop.schedule.step()
            loop.step += 1
            loop.losses.append(loss.detach())
            loop.history.seconds = time.monotonic() - started
            loop.history.cpu_seconds = time.process_time() - started_cpu
            ended = loop.step == settings.steps or (until is not None and until(loop.step))
            if accelerator.device.type == "cpu" or loop.step % LOOK == 0 or ended:
                loop.look(progress)
            for path in [path for step, path in (milestones or {}).items() if step == loop.step]:
                loop.save(path)
            if stop.signal or ended or loop.step % settings.checkpoint_every == 0:
                loop.save(loop.file)
            if ended:
                break
            if stop.signal:
                raise Stopped(stop.signal, name, loop.step, loop.file)
    if loop.sparsifier is not None:
        loop.sparsifier.finish()
    # The others go on to read what the main process has just written.
    accelerator.wait_for_everyone()
    return loop.history


def _optimizer(model: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), rate, weight_decay=decay)
    if settings.optimizer == "adadelta":
        return torch.optim.Adadelta(model.parameters(), rate, weight_decay=decay)
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=decay, fused=fused)


class _Loop:
    """What a checkpoint holds, and its coming and going."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Training,
        seed: int,
        folder: Path | None,
    ) -> None:
        self.model, self.optimizer, self.settings, self.seed = model, optimizer, settings, seed
        self.file = None if folder is None else folder / "checkpoint.safetensors"
        self.step = 0
        self.state: Any = None
        self.history = History()
        self.sparsifier: Sparsifier | None = None
        self.losses: list[Tensor] = []
        self.saved: Path | None = None
        self.schedule: torch.optim.lr_scheduler.LRScheduler

    def resume(self, folder: Path | None, begin: Path | None, sparsify: Sparsify | None) -> None:
        own = None if folder is None else folder / "checkpoint.safetensors"
        found = own if own is not None and own.exists() else begin
        kept = None
        if found is not None:
            kept = checkpoint.read(found)
            with checkpoint.resuming(found):
                self._check(found, kept)
                self.model.load_state_dict(kept["model"])
        # A sparsifier may add parameters to the optimizer, which the schedule and a saved state have to know.
        if sparsify is not None:
            self.sparsifier = sparsify(self.model).attach(self.optimizer)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.settings.rate)
        if found is not None and kept is not None:
            with checkpoint.resuming(found):
                self.optimizer.load_state_dict(kept["optimizer"])
                self.schedule.load_state_dict(kept["schedule"])
                self.step = int.__index__(kept["step"])  # TypeError for anything else
                device = next(iter(self.model.parameters())).device
                self.state = _to(kept["state"], device)
                self.history = History(**kept["history"])
                self.saved = found
                if self.sparsifier is not None and kept["sparsifier"] is not None:
                    self.sparsifier.load_state_dict(kept["sparsifier"])
        # Last, since tracing and the building of modules may draw random numbers.
        if found is not None and kept is not None:
            with checkpoint.resuming(found):
                checkpoint.set_random_state(kept["random"])
        else:
            torch.manual_seed(self.seed)

    def _check(self, path: Path, kept: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another training, before anything is changed."""
        missing = {"model", "optimizer", "schedule", "step", "state", "history", "sparsifier", "random"} - set(kept)
        if missing:
            raise checkpoint.CheckpointError(f"{path} lacks the fields {', '.join(sorted(missing))}; delete it.")
        mine = self._settings()
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

    def _settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with: all that the course depends on."""
        settings = {"seed": self.seed, **asdict(self.settings)}
        return {key: value for key, value in settings.items() if key not in ("device", "checkpoint_every")}

    def look(self, progress: TrainingProgress) -> None:
        """Check the losses since the last look, keep and show the figures."""
        values = [float(loss) for loss in self.losses]
        first = self.step - len(values) + 1
        self.losses.clear()
        for n, value in enumerate(values):
            if not math.isfinite(value):
                good = "there is no checkpoint yet" if self.saved is None else f"last good checkpoint: {self.saved}"
                raise Diverged(
                    f"The loss is {value} at step {first + n} of {self.settings.steps} ({good}).\n"
                    "Lower the learning rate or the clipping threshold, or take float32."
                )
        every = max(1, self.settings.steps // 200)
        if self.step // every > (first - 1) // every:
            density = self._density()
            self.history.note(self.step, values[-1], self._rate(), 1.0 if density is None else density)
        if progress.due(self.step):
            progress.show(self.step, values[-1], self._rate(), self._density())

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _density(self) -> float | None:
        return None if self.sparsifier is None else self.sparsifier.density()

    def save(self, path: Path | None) -> None:
        """Write the checkpoint, unless the weights are not finite: the last good one then stays."""
        if path is None or not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(
            path,
            {
                "settings": self._settings(),
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "sparsifier": None if self.sparsifier is None else self.sparsifier.state_dict(),
                "state": self.state,
                "history": asdict(self.history),
                "random": checkpoint.random_state(),
            },
        )
        self.saved = path


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_to(v, device) for v in value)
    return value
