"""Every kind of state a model can have: it comes back from the file, or `save` refuses it by name."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from sparsernn.surgery import _container
from sparsernn.surgery.checkpoint import load, save
from sparsernn.tensors import TensorFile


class Scaled(nn.Module):
    """A linear layer whose result is scaled by state of some kind, which `set_state` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.state()

    def state(self) -> Any:
        return 1 if self.scale is None else self.scale


class Attribute(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(2)

    def set_state(self) -> None:
        self.scale = torch.tensor([2.0, 3.0])


class InPlace(Attribute):
    def set_state(self) -> None:
        self.scale.mul_(5)


class Lazy(Scaled):
    """Made at the first run, of a size that only the run knows."""

    def set_state(self) -> None:
        self.scale = torch.full((1, 2), 4.0)


class Undeclared(Scaled):
    def set_state(self) -> None:
        self.late = torch.tensor(3.0)

    def state(self) -> Any:
        return getattr(self, "late", 1)


class LazyBuffer(Scaled):
    def __init__(self) -> None:
        super().__init__()
        del self.scale
        self.register_buffer("scale", None)

    def set_state(self) -> None:
        self.scale = torch.tensor([2.0, 0.5])


class Nested(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.tables = [torch.ones(2), {"a": (torch.ones(2), 3)}]
        self.same = self.tables[0]

    def set_state(self) -> None:
        self.tables[0].fill_(7)
        self.tables[1]["a"][0].fill_(0.5)

    def state(self) -> Any:
        return self.tables[0] + self.tables[1]["a"][0] * self.same


class Negated(Scaled):
    """Lazily negated views and expanded tensors, as buffers and as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("negated", torch.ones(2))
        self.register_buffer("wide", torch.ones(2))

    def set_state(self) -> None:
        self.negated = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
        assert self.negated.is_neg()
        self.wide = torch.tensor(2.0).expand(2)
        self.scale = torch.arange(8.0).view(2, 4).t()[1:3, 1]

    def state(self) -> Any:
        return self.scale * self.negated * self.wide if self.scale is not None else 1


class WithHistory(Attribute):
    """A tensor that still has its graph, as a state kept from a training step."""

    def set_state(self) -> None:
        self.scale = self.linear.weight.sum() * torch.ones(2)


KINDS = (Attribute, InPlace, Lazy, Undeclared, LazyBuffer, Nested, Negated, WithHistory)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plain_tensor_comes_back(kind, tmp_path):
    model, x = kind(), torch.randn(4, 3)
    model.set_state()
    save(model, tmp_path / "m")
    fresh = kind()
    before = copy.deepcopy(fresh.state_dict()), {k: v for k, v in vars(fresh).items() if isinstance(v, Tensor)}
    again = load(fresh, tmp_path / "m")
    assert torch.equal(again(x), model(x)) and not torch.equal(kind()(x), model(x))
    assert list(fresh.state_dict()) == list(before[0]) and all(getattr(fresh, k) is v for k, v in before[1].items())
    save(again, tmp_path / "again")
    assert torch.equal(load(kind(), tmp_path / "again")(x), model(x))


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None: ...


class Packing(nn.Linear):
    """As quantised layers of other packages do: a state of its own in the state dict."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "packed"] = torch.ones(2)


class Wrapped(Tensor):
    """A tensor whose values are elsewhere."""

    @staticmethod
    def __new__(cls, value: Tensor) -> Wrapped:
        return Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def with_buffer(value: Tensor) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_buffer("odd", value)
    return model


def with_attribute(value: Any) -> nn.Module:
    model = nn.Sequential(Scaled())
    model[0].odd = value
    return model


def quantised(kind: Any, layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {kind})


def scripted(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(layer)


REFUSED = {
    "a quantised linear layer": (lambda: quantised(nn.Linear, nn.Linear(2, 2)), "0 .Linear. keeps scale outside"),
    "a quantised LSTM": (lambda: quantised(nn.LSTM, nn.LSTM(2, 2)), "0._all_weight_values.0 .*param"),
    "a quantised cell": (lambda: quantised(nn.LSTMCell, nn.LSTMCell(2, 2)), "0.*packed"),
    "a scripted model": (lambda: scripted(nn.Linear(2, 2)), "the model is compiled by torch.jit"),
    "a scripted part": (lambda: nn.Sequential(scripted(nn.GRU(2, 2))), "0 is compiled by torch.jit"),
    "an extra state": (lambda: nn.Sequential(Extra(2, 2)), "0 has an extra state"),
    "state under a name of its own": (lambda: nn.Sequential(Packing(2, 2)), "0 .Packing. keeps packed outside"),
    "a lazy layer": (lambda: nn.Sequential(nn.LazyLinear(2)), "0.weight is of a lazy module"),
    "a wrapper subclass": (lambda: with_buffer(Wrapped(torch.ones(2))), "0.odd is a tensor .Wrapped"),
    "a sparse buffer": (lambda: with_buffer(torch.eye(2).to_sparse()), "0.odd is a tensor .*sparse_coo"),
    "a sparse attribute": (lambda: with_attribute(torch.eye(2).to_sparse()), "0.odd is a tensor .*sparse_coo"),
    "a quantised buffer": (
        lambda: with_buffer(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)),
        "0.odd is a tensor .*qint8",
    ),
    "a complex buffer": (lambda: with_buffer(torch.ones(2, dtype=torch.complex128)), "0.odd is a tensor .*complex128"),
    "a nested attribute": (
        lambda: with_attribute({"a": [torch.ones(2, device="meta")]}),
        r"0.odd\['a'\]\[0\] is .*meta",
    ),
    "a nested tensor": (lambda: with_attribute(torch.nested.nested_tensor([torch.ones(2)])), "0.odd is a tensor"),
}


@pytest.mark.counts("misuses", 1)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_refused_by_name(name, tmp_path):
    make, words = REFUSED[name]
    with pytest.raises(TypeError, match=words) as caught:
        save(make(), tmp_path / "m")
    assert str(caught.value).count("\n") <= 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(3), lambda: nn.Sequential(nn.LazyBatchNorm1d(), nn.ReLU())])
def test_a_lazy_model_is_run_once_before_a_file_is_loaded_into_it(make, tmp_path):
    model, x, fresh = make(), torch.randn(5, 2), make()
    model(x)
    save(model.eval(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"load: .*lazy module.*run the model once first"):
        load(fresh, tmp_path / "m")
    fresh(x)
    assert torch.equal(load(fresh.eval(), tmp_path / "m")(x), model(x))


def test_masks_norms_and_fake_quantisers_are_plain_state(tmp_path):
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), torch.ao.quantization.FakeQuantize())
        prune.identity(model[0], "weight")
        parametrizations.weight_norm(model[1])
        parametrizations.spectral_norm(model[2])
        return model

    model, x = make(), torch.randn(5, 3)
    prune.random_unstructured(model[0], "weight", 0.5)
    model(x)
    save(model.eval(), tmp_path / "m")
    assert torch.equal(load(make().eval(), tmp_path / "m")(x), model(x))


def test_attributes_from_a_file_hide_nothing(tmp_path):
    """A forged file can't put a tensor in the place of a method, a mode or a table of torch."""
    model = Scaled()
    for name in ("forward", "training", "_modules", "__class__", "linear.bias2", "a b"):
        model.__dict__.pop("scale", None)
        model.scale = torch.ones(2)
        save(model, tmp_path / "m")
        content = (tmp_path / "m").read_bytes()
        assert content.count(b"scale") >= 2
        with TensorFile(tmp_path / "m") as file:
            header, values = _container.read_header(file), file.read()
        header["tensors"][name] = header["tensors"].pop("scale")
        values[name] = values.pop("scale")
        _container.write_container(tmp_path / "f", header, values)
        with pytest.warns(UserWarning, match="no place"):
            again = load(Scaled(), tmp_path / "f")
        assert again.training is True and type(again) is Scaled
        again(torch.ones(1, 3))
