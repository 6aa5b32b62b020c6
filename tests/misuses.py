"""The misuses of tests/test_bad_input.py: what is called, and what the sentence about it has to say."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import sparsernn as srn
from sparsernn.learn.bayes import Bayes
from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.prune import Prune
from sparsernn.learn.rewire import Rewire
from sparsernn.learn.shrink import Shrink
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM
from sparsernn.runtime.layers import accelerate
from sparsernn.structure.cells import Cell, recurrent_layers, register_cell
from sparsernn.structure.trace import trace
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact


class Tagger(nn.Module):
    def __init__(self, bidirectional: bool = False):
        super().__init__()
        self.emb = nn.Embedding(7, 4)
        self.lstm = nn.LSTM(4, 6, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(12 if bidirectional else 6, 3)

    def forward(self, x, state=None):
        return self.fc(self.lstm(self.emb(x), state)[0])


class NotCopyable(Tagger):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Bench:
    """A model, an example, an optimizer and a folder to misuse, and a memory of how they were."""

    def __init__(self, folder: Path):
        torch.manual_seed(0)
        self.folder = folder
        self.model, self.fresh, self.both = Tagger().eval(), Tagger(), Tagger(True).eval()
        self.linear, self.lstm, self.gru = nn.Linear(3, 2), nn.LSTM(4, 6), RaggedGRU(3, [(4,)])
        self.x = torch.randint(0, 7, (2, 5))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.model(self.x).square().mean().backward()
        self.optimizer.step()
        self.stuck = NotCopyable()
        self.before = self.state()

    def state(self) -> Any:
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.model.modules()]
        steps = [len(self.optimizer._optimizer_step_pre_hooks), len(self.optimizer._optimizer_step_post_hooks)]
        modes = [m.training for m in self.model.modules()]
        files = sorted(path.name for path in self.folder.iterdir())
        values = [t.clone() for t in self.model.state_dict().values()]
        state = copy.deepcopy(self.optimizer.state_dict())
        return [hooks, steps, modes, files, list(self.model.state_dict()), torch.random.get_rng_state()], values, state

    def assert_unchanged(self) -> None:
        (plain, values, state), (old_plain, old_values, old_state) = self.state(), self.before
        assert plain[:-1] == old_plain[:-1] and torch.equal(plain[-1], old_plain[-1])
        assert all(torch.equal(a, b) for a, b in zip(values, old_values, strict=True))
        assert str(state) == str(old_state)

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        self.before = self.state()
        return path

    def saved(self) -> Path:
        save(self.model, self.folder / "good.safetensors")
        self.before = self.state()
        return self.folder / "good.safetensors"


class FullyShardedDataParallel(nn.Module):
    """Bears the name of torch's wrapper, by which it is refused."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class WrongRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden_size = 4
        self.weight_ih = nn.Parameter(torch.zeros(9, 3))
        self.weight_hh = nn.Parameter(torch.zeros(9, 4))


register_cell(WrongRows, Cell("Wrong", ("a", "b")))


def _other_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(3))], 0.1)


def _frozen(b: Bench) -> object:
    b.model.lstm.weight_ih_l0.requires_grad_(False)
    return Rewire(b.model, steps=9).attach(torch.optim.SGD(b.model.parameters(), 0.1))


def _attached_twice(b: Bench) -> None:
    sparsifier = Prune(b.model, None, 0.5).attach(torch.optim.SGD(b.model.parameters(), 0.1))
    sparsifier.attach(b.optimizer)


def _foreign(b: Bench) -> Path:
    save_file({"weight": torch.zeros(3)}, b.folder / "foreign.safetensors")
    b.before = b.state()
    return b.folder / "foreign.safetensors"


def _pickled(b: Bench) -> Path:
    torch.save(b.model.state_dict(), b.folder / "pickled.pt")
    b.before = b.state()
    return b.folder / "pickled.pt"


Misuse = tuple[str, Callable[[Bench], Any], tuple[str, ...]]  # name, call, what its sentence has to say

STRUCTURE: list[Misuse] = [
    ("trace a string", lambda b: trace("model", b.x), ("str", "Module")),  # type: ignore[arg-type]
    ("trace a state dict", lambda b: trace(b.model.state_dict(), b.x), ("OrderedDict", "Module")),  # type: ignore[arg-type]
    ("trace a model without recurrent layers", lambda b: trace(b.linear, torch.zeros(1, 3)), ("recurrent",)),
    ("trace without examples", lambda b: trace(b.model, []), ("empty list", "example")),
    ("trace with None", lambda b: trace(b.model, None), ("NoneType", "example")),
    ("trace with floats for tokens", lambda b: trace(b.model, torch.zeros(2, 5)), ("float32[2, 5]", "example")),
    ("trace with too wide inputs", lambda b: trace(b.lstm, torch.zeros(2, 1, 9)), ("[2, 1, 9]", "example")),
    ("trace with an unknown keyword", lambda b: trace(b.model, {"tokens": b.x}), ("tokens", "example")),
    ("trace with too many arguments", lambda b: trace(b.model, (b.x, None, 2)), ("example", "int")),
    ("trace the second of two examples", lambda b: trace(b.model, [b.x, torch.zeros(2)]), ("example 2",)),
    (
        "trace a sharded model",
        lambda b: trace(FullyShardedDataParallel(b.model), b.x),
        ("FSDP", "DistributedDataParallel"),
    ),
    ("trace a model that can't be copied", lambda b: trace(b.stuck, b.x), ("NotCopyable", "cop")),
    ("groups of an unknown level", lambda b: trace(b.model, b.x).groups("rows"), ("'rows'", "unit")),  # type: ignore[arg-type]
    ("dead units of no parameters", lambda b: trace(b.model, b.x).dead({}), ("parameter",)),
    ("declare no class", lambda b: register_cell(3, Cell("c", ("a",))), ("3", "class")),  # type: ignore[arg-type]
    ("a cell with wrong rows", lambda b: recurrent_layers(WrongRows()), ("9 rows", "2 x 4", "register_cell")),
]

SURGERY: list[Misuse] = [
    ("compact a string", lambda b: compact("model", b.x), ("str", "Module")),  # type: ignore[arg-type]
    ("compact a model without recurrent layers", lambda b: compact(b.linear, torch.zeros(1, 3)), ("recurrent",)),
    ("compact with examples that don't fit", lambda b: compact(b.model, torch.zeros(2, 5)), ("example",)),
    ("compact without examples", lambda b: compact(b.model, []), ("example",)),
    ("compact with a name for an optimizer", lambda b: compact(b.model, b.x, optimizer="adam"), ("adam", "ptimizer")),  # type: ignore[arg-type]
    ("compact with another's optimizer", lambda b: compact(b.model, b.x, optimizer=_other_optimizer()), ("optimizer",)),
    ("save a state dict", lambda b: save(b.model.state_dict(), b.folder / "a"), ("OrderedDict", "Module")),  # type: ignore[arg-type]
    ("save into no folder", lambda b: save(b.model, b.folder / "no" / "a.safetensors"), ("no",)),
    ("load a missing file", lambda b: load(b.fresh, b.folder / "missing.safetensors"), ("missing.safetensors",)),
    ("load a folder", lambda b: load(b.fresh, b.folder), (".",)),
    ("load an empty file", lambda b: load(b.fresh, b.write("empty.safetensors", b"")), ("empty.safetensors",)),
    ("load noise", lambda b: load(b.fresh, b.write("noise.safetensors", bytes(range(256)))), ("noise.safetensors",)),
    ("load a foreign file", lambda b: load(b.fresh, _foreign(b)), ("foreign.safetensors",)),
    ("load a pickle", lambda b: load(b.fresh, _pickled(b)), ("pickled.pt",)),
    ("load half a file", lambda b: load(b.fresh, b.write("half", b.saved().read_bytes()[:-40])), ("half",)),
    ("load into another model", lambda b: load(b.lstm, b.saved()), ("good.safetensors",)),
    ("load into the other directions", lambda b: load(b.both, b.saved()), ("good.safetensors", "lstm")),
    ("load into a class", lambda b: load(Tagger, b.saved()), ("Module",)),  # type: ignore[arg-type]
]

LEARN: list[Misuse] = [
    ("sparsity over one", lambda b: Prune(b.model, b.x, sparsity=1.2), ("1.2", "between 0 and 1")),
    ("negative sparsity", lambda b: Prune(b.model, b.x, sparsity=-0.1), ("-0.1", "between 0 and 1")),
    ("sparsity not a number", lambda b: Prune(b.model, b.x, sparsity=float("nan")), ("nan", "between 0 and 1")),
    ("sparsity as text", lambda b: Prune(b.model, b.x, sparsity="0.9"), ("'0.9'",)),  # type: ignore[arg-type]
    ("unknown level", lambda b: Prune(b.model, b.x, level="neuron"), ("neuron", "unit")),  # type: ignore[arg-type]
    ("unknown scope", lambda b: Prune(b.model, b.x, scope="global"), ("global", "model")),  # type: ignore[arg-type]
    ("unknown score", lambda b: Prune(b.model, b.x, score="l1"), ("'l1'", "Magnitude")),  # type: ignore[arg-type]
    ("unknown schedule", lambda b: Prune(b.model, b.x, schedule="cubic"), ("'cubic'", "Gradual")),  # type: ignore[arg-type]
    ("unit level without an example", lambda b: Prune(b.model, None, level="unit"), ("example_inputs",)),
    ("pattern that matches nothing", lambda b: Prune(b.model, b.x, include="gru.*"), ("gru.*", "lstm")),
    ("prune no recurrent layer", lambda b: Prune(b.linear, torch.zeros(1, 3)), ("recurrent",)),
    ("prune a class", lambda b: Prune(Tagger, b.x), ("Module",)),  # type: ignore[arg-type]
    ("a penalty without strength", lambda b: GroupLasso(b.model, b.x), ("strength",)),  # type: ignore[call-arg]
    ("neither size nor loss", lambda b: Shrink(b.model, b.x, steps=10), ("to=", "max_loss=")),
    ("size without steps", lambda b: Shrink(b.model, b.x, to=0.5), ("steps",)),
    ("size over one", lambda b: Shrink(b.model, b.x, to=25, steps=10), ("25",)),
    ("no steps", lambda b: Shrink(b.model, b.x, to=0.5, steps=0), ("steps", "0")),
    ("negative strength", lambda b: GroupLasso(b.model, b.x, strength=-1e-3), ("-0.001", "strength")),
    ("unknown update", lambda b: L1(b.model, b.x, strength=1.0, update="adam"), ("adam", "proximal")),  # type: ignore[arg-type]
    ("bayes without its data's size", lambda b: Bayes(b.model, b.x, train_size=0), ("train_size", "0")),
    ("bayes at no level", lambda b: Bayes(b.model, b.x, train_size=9, level="word"), ("word", "gate")),  # type: ignore[arg-type]
    ("bayes without an example", lambda b: Bayes(b.model, train_size=9), ("example_inputs",)),
    ("rewire without steps", lambda b: Rewire(b.model), ("steps=",)),
    ("rewire units", lambda b: Rewire(b.model, b.x, steps=9, level="unit"), ("'unit'", "'block'")),  # type: ignore[arg-type]
    ("rewire in percent", lambda b: Rewire(b.model, sparsity=90, steps=9), ("90", "between 0 and 1")),
    ("grow by a score", lambda b: Rewire(b.model, steps=9, grow="taylor"), ("'taylor'", "'gradient'")),  # type: ignore[arg-type]
    ("rewire in another storage", lambda b: Rewire(b.model, steps=9, storage="csr"), ("'csr'", "'sparse'")),  # type: ignore[arg-type]
    ("rewire every half step", lambda b: Rewire(b.model, steps=9, every=0.5), ("every", "0.5")),  # type: ignore[arg-type]
    ("rewire a frozen layer", _frozen, ("lstm.weight_ih_l0", "include=")),
    ("attach to a model", lambda b: Prune(b.model, b.x).attach(b.model), ("Tagger", "ptimizer")),  # type: ignore[arg-type]
    ("attach to another's optimizer", lambda b: Prune(b.model, b.x).attach(_other_optimizer()), ("SGD", "lstm.weight")),
    ("attach twice", _attached_twice, ("already attached", "SGD")),
    ("state of nothing", lambda b: Prune(b.model, b.x).load_state_dict({}), ("Prune",)),
    (
        "state of another sparsifier",
        lambda b: Prune(b.model, b.x).load_state_dict(GroupLasso(b.model, b.x, strength=1.0).state_dict()),
        ("GroupLasso", "Prune"),
    ),
    (
        "state of another model",
        lambda b: Prune(b.model, b.x).load_state_dict(Prune(b.both, b.x).state_dict()),
        ("unknown lstm.weight_ih_l0_reverse", "same model"),
    ),
]

RUNTIME: list[Misuse] = [
    ("accelerate a string", lambda b: accelerate("model"), ("str", "Module")),  # type: ignore[arg-type]
    ("accelerate in training mode", lambda b: accelerate(b.fresh.train()), ("training", "eval()")),
    ("accelerate at an unknown precision", lambda b: accelerate(b.model, "half"), ("'half'", "float32")),  # type: ignore[arg-type]
    ("accelerate float64", lambda b: accelerate(b.fresh.eval().double()), ("float64", "float()")),
    ("accelerate twice", lambda b: accelerate(accelerate(b.model)), ("accelerated already",)),
    ("stream of no batch", lambda b: accelerate(b.model).stream(batch=0), ("0", "from 1")),  # type: ignore[operator]
    ("stream half a step late", lambda b: accelerate(b.model).stream(delay=1.5), ("1.5", "whole number")),  # type: ignore[operator]
    ("stream along no axis", lambda b: accelerate(b.model).stream(time="first"), ("'first'", "axis")),  # type: ignore[operator]
    ("stream a number of states", lambda b: accelerate(b.model).stream(states=3), ("3", "dict")),  # type: ignore[operator]
    ("stream backwards", lambda b: accelerate(b.both).stream(), ("bidirectional",)),  # type: ignore[operator]
]

MODULES: list[Misuse] = [
    ("a layer of no width", lambda b: RaggedLSTM(3, [(4,), (0,)]), ("0", "positive")),
    ("one width for two directions", lambda b: RaggedLSTM(3, [(4,)], bidirectional=True), ("[4]", "2 positive")),
    ("no layers", lambda b: RaggedLSTM(3, []), ("empty",)),
    ("projections of a GRU", lambda b: RaggedGRU(3, [(4,)], proj_sizes=[(2,)]), ("proj_sizes", "LSTM")),
    ("a dropout of two", lambda b: RaggedLSTM(3, [(4,), (5,)], dropout=2.0), ("2.0", "0 to 1")),
    ("a state of the wrong width", lambda b: b.gru(torch.zeros(2, 1, 3), torch.zeros(1, 1, 9)), ("9",)),
]

LOOKING: list[Misuse] = [
    ("inspect a string", lambda b: srn.inspect("model", b.x), ("str", "Module")),  # type: ignore[arg-type]
    ("inspect no recurrent layer", lambda b: srn.inspect(b.linear, torch.zeros(1, 3)), ("recurrent",)),
    ("inspect with examples that don't fit", lambda b: srn.inspect(b.model, torch.zeros(2, 5)), ("example",)),
    ("time nothing", lambda b: srn.benchmark({}, b.x), ("no models", "dict")),
    ("time a name", lambda b: srn.benchmark({"dense": "model"}, b.x), ("'dense'", "str")),
    ("time no repeats", lambda b: srn.benchmark({"dense": b.model}, b.x, repeats=0), ("repeats", "0")),
    ("time a list of models", lambda b: srn.benchmark([b.model], b.x), ("list", "dict")),  # type: ignore[arg-type]
    ("export a string", lambda b: srn.export_onnx("model", b.folder / "a.onnx", b.x), ("str", "Module")),  # type: ignore[arg-type]
    ("export into no folder", lambda b: srn.export_onnx(b.model, b.folder / "no" / "a.onnx", b.x), ("no",)),
    (
        "export with examples that don't fit",
        lambda b: srn.export_onnx(b.model, b.folder / "a.onnx", torch.zeros(2, 5)),
        ("example",),
    ),
]

MISUSES = [*LOOKING, *STRUCTURE, *SURGERY, *LEARN, *RUNTIME, *MODULES]
