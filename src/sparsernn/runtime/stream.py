"""Streaming: one time step at a time, with its own state and no allocation."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .compiled import address, function
from .delta import Found, Matrices, Read
from .fields import Field
from .memory import check, eager, signature, undisturbed
from .modules import Accelerated
from .pack import WIDTH, Arrangement, Packed, unit_rows
from .packed_layer import PackedLayer, Workspace
from .program.rows import mask_of
from .recording import NotAChain, Part
from .thin import AnyMatrix, matrix_of
from .weights import layer_weights, linear_names, linear_weight

TABLE_BYTES = 8 << 20  # an embedding and the product behind it become one table up to this size
_ELEMENTWISE = {"relu": "chain.relu", "tanh": "chain.hyperbolic", "sigmoid": "chain.logistic"}


class Stream:
    """A model running step by step: `step(x)`, `reset()`, `state`.

    Streams are made by `fast.stream(batch)`. Each has its own state and buffers, so several can run side by side, one
    in each thread; the weights are those of the moment it was made.
    """

    def __init__(self, parts: Sequence[tuple[str, Part]], batch: int, thresholds: Found | None = None) -> None:
        """thresholds: of layers whose columns are skipped where their input hardly moved (delta.py), for one row."""
        self.batch, self._matrices = batch, Matrices(thresholds)
        self._kept: list[Any] = []
        self._spaces: list[Workspace] = []
        self._inputs: list[tuple[Any, int]] = []  # the fields that take the address of x, and where
        operations: list[int] = []
        buffer: Tensor | None = None  # (batch, padded width): output of the part before
        width = 0
        waiting: nn.Embedding | None = None
        self.tokens = isinstance(parts[0][1], nn.Embedding)
        first = parts[0][1]
        self.features = 0 if self.tokens else input_size(first)
        self._stop = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._tokens = torch.zeros(batch, dtype=torch.int64, device="cpu")
        for (name, part), (_, following) in zip(parts, [*parts[1:], ("", "")]):
            if isinstance(part, nn.Embedding):
                if part.max_norm is not None or buffer is not None or waiting is not None:
                    raise NotAChain(f"{name} is an Embedding that is not the first part, or has max_norm")
                fields = [0, self._tokens.data_ptr(), batch, part.num_embeddings, self._stop.data_ptr()]
                operations += self._operation(address("chain.tokens"), fields, 0)
                if _table_fits(part, following):
                    waiting = part
                else:
                    buffer = self._lookup(part, operations)
            elif isinstance(part, str):
                if waiting is not None or buffer is None:
                    raise NotAChain(f"{name} comes before the first layer")
                out = torch.zeros_like(buffer)
                fields = [buffer.data_ptr(), out.data_ptr(), buffer.numel() // WIDTH]
                operations += self._operation(address(_ELEMENTWISE[part]), fields)
                self._kept += [buffer, out]
                buffer = out
            elif linear_names(part):
                packed, out = self._linear(part, waiting)
                fields = [packed.kernel, packed.plan, *self._source(buffer, waiting), batch, out.data_ptr()]
                fields += [out.shape[1] * 4, self._scratch(packed)]
                place = 2 if buffer is None and waiting is None else -1
                operations += self._operation(address("chain.product"), fields, place)
                buffer, width, waiting = out, linear_weight(part).shape[0], None
            elif isinstance(part, Accelerated):
                module: Any = part
                for layers, own in zip(module._engine.layers(part, batch, 1), module._engine.matrices(part)):
                    if len(layers) > 1:
                        raise NotAChain(f"{name} is bidirectional: it needs the whole sequence")
                    buffer, width = self._layer(module, layers[0], own[0].matrices, buffer, waiting, operations)
                    waiting = None
            else:
                raise NotAChain(f"{name} is a {type(part).__name__}")
        if buffer is None:
            raise NotAChain("it has no layer")
        self.output_size = width
        self._output = buffer[:, :width]
        self._operations = torch.tensor(operations, dtype=torch.int64, device="cpu")
        self._chain = (ctypes.c_int64 * 3)(self._operations.data_ptr(), len(operations) // 2, self._stop.data_ptr())
        # One argument, an object made beforehand: each number that a call has to convert costs as much as the call.
        self._argument = ctypes.c_int64(ctypes.addressof(self._chain))
        self._run = function("chain.chain", 1)
        ((self._fields, self._place),) = self._inputs
        self._stopped = (ctypes.c_int64 * 1).from_address(self._stop.data_ptr())
        self._last = first.num_embeddings - 1 if isinstance(first, nn.Embedding) else 0
        self._shape = torch.Size((batch,) if self.tokens else (batch, self.features))
        self._dtype = torch.int64 if self.tokens else torch.float32
        self._fits: Callable[..., bool] = signature()  # whether a tensor is like the last one that was looked at

    @eager
    def step(self, x: Tensor) -> Tensor:
        """One time step: the model's output for `x`, (batch, output features).

        x: (batch,) int64 token numbers where the model begins with an Embedding, else (batch, features) float32.
        The result is the stream's own memory and is overwritten by the next step: clone() it to keep it.
        """
        if not self._fits(x) or not undisturbed():
            x = self._checked(x)
        self._fields[self._place] = x.data_ptr()
        self._run(self._argument)
        if self.tokens and self._stopped[0]:
            self._stopped[0] = 0
            raise IndexError(f"step: a token of {x.tolist()} is outside of the embedding's rows, 0 to {self._last}.")
        return self._output

    def reset(self, rows: Any = None) -> None:
        """Back to the state of zeros: all rows of the batch, or those where `rows`, (batch,) bool, is True."""
        mask = slice(None) if rows is None else mask_of(rows, self.batch)
        for space in self._spaces:
            space.clear(mask)
        if not isinstance(mask, Tensor) or bool(mask.all()):  # they have one row
            for product in self._matrices.products:
                product.clear()

    @property
    def state(self) -> list[tuple[Tensor, ...]]:
        """A copy of the state, one (h,) or (h, c) for each recurrent layer, each (batch, width). Can be assigned.

        A stream with deltas has one (memory,) more for each matrix with thresholds.
        """
        memories = [(product.memory.clone(),) for product in self._matrices.products]
        return [*(tuple(space.states()) for space in self._spaces), *memories]

    @state.setter
    def state(self, value: Sequence[Sequence[Tensor]]) -> None:
        want = [[tuple(s.shape) for s in states] for states in self.state]
        got = [[tuple(s.shape) for s in states] for states in value]
        if got != want:
            raise ValueError(f"state: got tensors of shapes {got}, expected {want}, one row a recurrent layer.")
        for space, states in zip(self._spaces, value):
            space.set_states(states)
        for product, (memory,) in zip(self._matrices.products, value[len(self._spaces) :]):
            product.memory.copy_(memory)

    @property
    def read(self) -> Read:
        """What its steps read of the matrices so far, on the mean: `steps`, `columns`, `bytes`, `plain`."""
        return self._matrices.read()

    def _checked(self, x: Any) -> Tensor:
        shape = f"{tuple(self._shape)} {str(self._dtype).removeprefix('torch.')}"
        if not isinstance(x, Tensor):
            raise TypeError(f"step: got {type(x).__name__}, expected a tensor of {shape}.")
        if x.device.type != "cpu" or tuple(x.shape) != tuple(self._shape):
            raise ValueError(
                f"step: got {tuple(x.shape)} on {x.device}, expected {shape} on the CPU: one time step, no time axis."
            )
        if x.dtype != self._dtype and (x.is_floating_point() or not self.tokens):
            raise TypeError(f"step: got {x.dtype}, expected {self._dtype}.")
        check("step", x, dtype=x.dtype)
        self._kept_input = x.to(self._dtype).resolve_neg().contiguous()
        if self._kept_input is x and undisturbed():
            self._fits = signature(x)
        return self._kept_input

    def _operation(self, kernel: int, fields: list[int], place: int = -1) -> list[int]:
        """A kernel and its fields; x, the input of the whole, comes at `place` where that is not -1."""
        array = (ctypes.c_int64 * len(fields))(*fields)
        self._kept.append(array)
        if place >= 0:
            self._inputs.append((array, place))
        return [kernel, ctypes.addressof(array)]

    def _scratch(self, packed: Packed) -> int:
        scratch = torch.empty(packed.scratch, dtype=torch.uint8, device="cpu")
        self._kept.append(scratch)
        return scratch.data_ptr()

    def _source(self, buffer: Tensor | None, waiting: nn.Embedding | None) -> tuple[int, int]:
        """Address and stride of a part's input; the first part's address comes with each step."""
        if buffer is not None:
            return buffer.data_ptr(), buffer.stride(0) * 4
        return (0, self.features * 4) if waiting is None else (self._tokens.data_ptr(), 8)

    def _linear(self, part: Any, waiting: nn.Embedding | None) -> tuple[Packed, Tensor]:
        rows, where = unit_rows(part.out_features, 1, (0,), 1)
        bias = torch.zeros(rows.numel(), dtype=torch.float32, device="cpu")
        if part.bias is not None:
            bias[: part.out_features] = part.bias.detach()
        precision = part._engine.precision if isinstance(part, Accelerated) else "float32"
        matrix = matrix_of(linear_weight(part), Arrangement(rows, where, bias, len(bias)), precision)
        plain = matrix.packed(matrix.choose(self.batch).layout)
        out = torch.zeros(self.batch, len(bias), dtype=torch.float32, device="cpu")
        packed = self._first(part, "l0", matrix, plain, waiting, len(bias))
        self._kept += [packed, out]
        return packed, out

    def _first(
        self, part: Any, layer: str, matrix: AnyMatrix, plain: Packed, waiting: nn.Embedding | None, width: int
    ) -> Packed:
        """What multiplies with the inputs of a layer; behind an embedding a table of its products."""
        if waiting is None:
            return self._matrices.packed(part, layer, 0, matrix, plain)
        return self._matrices.whole(self._table(waiting, plain, width), 4 * width * self.batch)

    def _layer(
        self, part: nn.Module, layer: PackedLayer, matrices: Mapping[str, AnyMatrix], buffer: Tensor | None,
        waiting: nn.Embedding | None, operations: list[int],
    ) -> tuple[Tensor, int]:  # fmt: skip
        space = Workspace(layer, self.batch, self.batch)
        f, name = space.fields, layer.weights.name
        ih = self._first(part, name, matrices["ih"], layer.ih, waiting, layer.gates_width)
        hh = self._matrices.packed(part, name, 1, matrices["hh"], layer.hh)
        for packed in layer.products[2:]:
            self._matrices.whole(packed)
        f[Field.INPUT_KERNEL], f[Field.INPUT_PLAN] = ih.kernel, ih.plan
        f[Field.HIDDEN_KERNEL], f[Field.HIDDEN_PLAN] = hh.kernel, hh.plan
        f[Field.STEPS], f[Field.ROWS] = 1, self.batch
        f[Field.X], f[Field.X_ROW] = self._source(buffer, waiting)
        if buffer is None and waiting is None:
            self._inputs.append((f, Field.X))
        self._spaces.append(space)
        self._kept += [layer, ih, hh]
        operations += [address("sequence.layer"), space.address]
        return space.recurrent_buffer, layer.weights.output_size

    def _lookup(self, embedding: nn.Embedding, operations: list[int]) -> Tensor:
        """An embedding too large for a table: its row is copied."""
        weight = embedding.weight.detach().resolve_neg().contiguous()
        out = torch.zeros(self.batch, -(-weight.shape[1] // WIDTH) * WIDTH, dtype=torch.float32, device="cpu")
        fields = [self._tokens.data_ptr(), self.batch, weight.data_ptr(), weight.shape[1], out.data_ptr()]
        operations += self._operation(address("chain.lookup"), [*fields, out.stride(0) * 4])
        self._kept += [weight, out]
        return out

    def _table(self, embedding: nn.Embedding, packed: Packed, width: int) -> Packed:
        """The product of every row of the embedding, worked out once: a step looks its row up."""
        vectors = embedding.weight.detach().resolve_neg().contiguous()
        count, size = vectors.shape
        rows = torch.empty(count, width, dtype=torch.float32, device="cpu")
        fields = [packed.kernel, packed.plan, vectors.data_ptr(), size * 4, count, rows.data_ptr(), width * 4]
        fields.append(self._scratch(packed))
        array = (ctypes.c_int64 * 8)(*fields)
        function("chain.product", 1)(ctypes.addressof(array))
        plan = torch.tensor([rows.data_ptr(), width // WIDTH], dtype=torch.int64, device="cpu")
        self._kept += [rows, plan]
        return Packed("table", "chain.table", plan.data_ptr(), rows.numel() * 4, 0, ())


def _table_fits(embedding: nn.Embedding, following: Any) -> bool:
    if linear_names(following):
        width = following.out_features
    elif isinstance(following, Accelerated):
        width = 4 * max(weights.hidden_size for weights in layer_weights(cast(nn.Module, following)))
    else:
        return False
    return embedding.num_embeddings * width * 4 <= TABLE_BYTES


def input_size(part: Any) -> int:
    """Features that a layer reads; 0 where it does not say."""
    if linear_names(part):
        return part.in_features
    return int(getattr(part, "input_size", 0))
