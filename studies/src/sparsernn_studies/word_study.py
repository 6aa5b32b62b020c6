"""What studies of word models share: how a net is trained, made small, measured and timed on Penn Treebank."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from sparsernn.runtime.layers import accelerate
from sparsernn.surgery.checkpoint import save
from sparsernn.surgery.compact import compact
from sparsernn.timing import benchmark

from .baselines import bigram_bits
from .results import Result, sizes
from .study import Row, Study
from .tables import Column, figure
from .tasks import ptb_word
from .tasks.text import Text, bits_per_symbol
from .thresholds import largest_harmless
from .word_training import WordTrainer

STEPS, BATCH = 30, 10  # of the paper's timing
LONG = 256  # words of one stream that are read at once where nothing is learnt


@dataclass(frozen=True)
class Net(Row):
    """`kind`: what is learnt to go, or that nothing is; "bigram" for what needs no net. `begins`: the row whose net it
    begins with: the dense one's weights, or what is left of a sparse one."""

    label: str
    kind: str
    begins: str = ""
    share: float = 0.0  # of the blocks that stay
    strength: float = 0.0  # of the penalty, where rows differ in it


S = TypeVar("S")


class WordStudy(Study[S, Net]):
    """A subclass says what the untrained nets are, how they are trained and what makes them sparse."""

    settings: Any
    caption = "Perplexities; one thread, 10 texts of 30 words with the softmax; speed against the dense net in torch."
    columns = (
        figure("valid", "valid_perplexity", "{:.2f}"),
        figure("test", "test_perplexity", "{:.2f}"),
        figure("in int8", "test_perplexity_int8", "{:.2f}"),
        figure("units", "units"),
        Column("weights", lambda m: f"{m['nonzero'] / 1e6:.2f}M"),
        Column("mult-adds", lambda m: f"{m['mult_adds'] / 1e6:.2f}M"),
        figure("dense, ms", "ms_dense", "{:.2f}"),
        figure("torch, ms", "ms_compact", "{:.2f}"),
        figure("", "speedup_compact", "{:.1f}x"),
        figure("ours, ms", "ms_fast", "{:.2f}"),
        figure("", "speedup_fast", "{:.1f}x"),
        figure("int8, ms", "ms_int8", "{:.2f}"),
        figure("", "speedup_int8", "{:.1f}x"),
    )
    hidden = ("*_course",)
    timing = "ms_fast"

    @cached_property
    def text(self) -> Text:
        whole = ptb_word.by_frequency(ptb_word.load(self.run.data), self.settings.words)
        few = self.settings.measured_words or None
        return Text(whole.symbols, whole.train, whole.valid[:few], whole.test[:few])

    @cached_property
    def example_inputs(self) -> Tensor:
        return self.text.train[: STEPS * BATCH].view(STEPS, BATCH)

    @property
    def saved(self) -> list[Net]:
        return [row for row in self.rows if row.kind != "bigram"]

    @property
    def timed_rows(self) -> list[Net]:
        return self.saved

    def training(self, row: Net) -> Any:
        return self.settings.training(row)

    def start(self, row: Net) -> Any:
        if row.begins and row.kind == "blocks":
            return self.load(self.named(row.begins), "-compact")
        model = self.model(row)
        if row.begins:
            model.load_state_dict(self.load(self.named(row.begins)).state_dict())
        return model

    def make(self, row: Net) -> Mapping[str, Any]:
        """Train `row` (or go on with it), take out what can go, save both nets and measure."""
        text = self.text
        if row.kind == "bigram":
            parts = {"valid": text.valid, "test": text.test}
            return {f"{n}_perplexity": 2 ** bigram_bits(text.train, p, len(text.symbols)) for n, p in parts.items()}
        training, model = self.training(row), self.start(row)
        folder = self.run.folder / row.name
        sparsify: Any = self.sparsifier(row)
        trainer = WordTrainer(model, text.train, text.valid, training, self.run.seed, folder, sparsify)
        trainer.train(row.name)
        model.cpu().eval()
        save(model, self.file(row))
        with warnings.catch_warnings():  # dense nets and single weights leave no unit without readers
            warnings.simplefilter("ignore")
            small: Any = compact(model, self.example_inputs)
        save(small, self.file(row, "-compact"))
        fewer_bits = in_int8(small)
        small = small.to(trainer.device)
        measured = {
            "valid_perplexity": 2 ** bits_per_symbol(small, text.valid, streams=training.batch, window=training.bptt),
            "test_perplexity": 2 ** bits_per_symbol(small, text.test, streams=1, window=LONG),
            "test_perplexity_int8": 2 ** bits_per_symbol(fewer_bits, text.test, streams=1, window=LONG),
            "valid_course": [2**bits for bits in trainer.losses],
            "train_course": list(trainer.train_perplexity),
            "steps": trainer.step,
            "units": [layer.hidden_size for layer in small.layers],
            **sizes(small),
            "mult_adds": self.mult_adds(small),
        }
        if row.kind == "dense" and getattr(self.settings, "threshold", None) == 0:  # where there is ISS
            measured["harmless_threshold"] = self.harmless_threshold(small, training)
        # The best epoch need not be the last one, whose density was noted.
        return measured | ({"density": trainer.kept[-1]} if trainer.kept and not trainer.best.is_file() else {})

    def harmless_threshold(self, dense: nn.Module, training: Any) -> float:
        """The largest threshold that costs at most a thousandth of the bits of the validation part."""

        def bits(model: Any) -> float:
            return bits_per_symbol(model, self.text.valid, streams=training.batch, window=training.bptt)

        most = 1.001 * bits(dense)
        return largest_harmless(
            dense, self.example_inputs.to(next(dense.parameters()).device), lambda m: bits(m) <= most
        )

    @property
    def threshold(self) -> float:
        """That of ISS: the one that is set, else the one that is harmless to the dense net."""
        return self.settings.threshold or self.result(self.named("dense")).measured["harmless_threshold"]

    def mult_adds(self, model: Any) -> int:
        """Multiply-adds for one word: non-zero weights of all matrices but the embedding, where words are looked up."""
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("embedding")]
        return sum(int(p.count_nonzero()) for p in matrices)

    def units_of(self, name: str) -> tuple[int, ...]:
        """Units of each layer that are left in a row: the sizes of the one that is trained directly."""
        return tuple(self.result(self.named(name)).measured["units"])

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with the times of the paper's batch added: one thread's own, side by side with the dense net, in
        torch, in our runtime, and there in int8."""
        torch.set_num_threads(1)
        dense = next((row for row in self.rows if row.kind == "dense"), None)
        full = self.load(dense) if dense else self.model(Net("dense", "", "dense")).eval()
        found = dict(rows)
        for row in self.timed_rows:
            small = self.load(row, "-compact")
            forms: dict[str, nn.Module] = {"compact": small, "fast": accelerate(small), "int8": in_int8(small)}
            table = benchmark(
                {"dense": full, **forms},
                self.example_inputs,
                repeats=self.settings.bench_rounds,
                console=Console(quiet=True),
                clock=time.thread_time,
            )
            figures: dict[str, Any] = {f"ms_{each.name}": each.milliseconds for each in table.rows}
            for each in table.rows[1:]:
                figures |= {f"speedup_{each.name}": each.ratio, f"spread_{each.name}": each.spread}
            found[row.name] = self.run.add(rows[row.name], figures)
        return found


def in_int8(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # a processor that has no int8 products says so in `accelerate`
        warnings.simplefilter("ignore", RuntimeWarning)
        return accelerate(model, "int8")
