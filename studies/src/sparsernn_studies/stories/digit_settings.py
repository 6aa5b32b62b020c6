"""What can be set in the recipe spoken-digits."""

from __future__ import annotations

from dataclasses import replace

from ..settings import settings
from ..train import Training


@settings
class Settings:
    """`target`: share of the recurrent weights kept, as whole units; `ramp_begin`, `ramp_end` and `freeze`: when they
    go, in shares of the steps. `block_sparsity`: share of the compact net's 16x1 blocks that goes in `block_steps`
    more steps, so that target (1 - block_sparsity) of the weights are left. `taught`: share of the loss in which the
    nets that become or are small follow the dense one, which they start from where they have its form; `sparse_rate`:
    their learning rate then. `small_dropout`: of these nets, which need less of it (Wen et al., arXiv 1709.05027,
    lower it likewise).

    `variants`: augmented forms of each recording; `masked`: mel bands that each of two masks hides at most.
    `bench_recordings`: how many are streamed to time a frame. `made`: tones take the place of the recordings, to try
    things out without data. `threads` 0: as many as torch finds cores.
    """

    hidden: int = 128
    dropout: float = 0.3
    small_dropout: float = 0.1
    variants: int = 6
    masked: int = 8
    target: float = 0.4
    ramp_begin: float = 0.1
    ramp_end: float = 0.4
    freeze: float = 0.5
    block_sparsity: float = 0.5
    block_steps: int = 400
    block_rate: float = 3e-3
    taught: float = 0.9
    sparse_rate: float = 4e-3
    steps: int = 500
    batch: int = 64
    learning_rate: float = 8e-3
    weight_decay: float = 0.01
    warm_up: int = 50
    bench_recordings: int = 60
    made: bool = False
    threads: int = 1  # more gain little at this size

    def check(self) -> None:
        self.training()
        for name in ("target", "dropout", "small_dropout", "block_sparsity", "taught"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share from 0 to below 1.")
        for name in ("hidden", "batch", "block_steps", "bench_recordings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")
        for name in ("variants", "masked"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number from 0 on.")

    def training(self) -> Training:
        return Training(self.steps, self.learning_rate, self.warm_up, weight_decay=self.weight_decay)

    def thinning(self) -> Training:
        """Of the net that loses units, which starts from the dense one."""
        return replace(self.training(), learning_rate=self.sparse_rate)

    def direct(self) -> Training:
        """Of the equal-size net: as many steps as dense, sparse and blocks have together."""
        return replace(self.training(), steps=2 * self.steps + self.block_steps)

    def pruning(self) -> Training:
        """Of the blocks: a short training with a rate of its own."""
        return Training(self.block_steps, self.block_rate, min(self.warm_up, self.block_steps // 10))


SMOKE = Settings(
    hidden=32,
    variants=1,
    target=0.5,
    steps=40,
    block_steps=10,
    batch=16,
    warm_up=5,
    bench_recordings=4,
    made=True,
)
