"""What can be set in the study of spoken digits."""

from __future__ import annotations

from ..settings import Count, NotNegative, Positive, Share, Whole, settings


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

    hidden: Count = 128
    dropout: Share = 0.3
    small_dropout: Share = 0.1
    variants: Whole = 6
    masked: Whole = 8
    target: Share = 0.4
    ramp_begin: float = 0.1
    ramp_end: float = 0.4
    freeze: float = 0.5
    block_sparsity: Share = 0.5
    block_steps: Count = 400
    block_rate: Positive = 3e-3
    taught: Share = 0.9
    sparse_rate: Positive = 4e-3
    steps: Count = 500
    batch: Count = 64
    learning_rate: Positive = 8e-3
    weight_decay: NotNegative = 0.01
    warm_up: Whole = 50
    bench_recordings: Count = 60
    made: bool = False
    threads: Whole = 1  # more gain little at this size


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
