"""What can be set in the comparison of methods."""

from __future__ import annotations

from typing import Literal

from ...settings import Count, Part, Positive, Some, Whole, settings
from .ways import WAYS

NetName = Literal["series", "lstm", "digits", "reviews"]
NETS: dict[NetName, str] = {
    "series": "NARMA-10, two tanh RNN layers (squared error)",
    "lstm": "characters, LSTM (bits)",
    "digits": "spoken digits, two GRU layers (share of errors)",
    "reviews": "IMDb reviews, LSTM (share of errors)",
}


@settings
class Settings:
    """`left`: shares of the recurrent weights; `steps` of the dense training, at `learning_rate`; `further` ones of
    ways that begin with it, at `further_rate`; `early`: the step to which weights are rewound; `characters`: how many
    times as many of each there are for characters, which take longer to beat their bigram. `strengths`: of the
    penalties. `ways`: which are tried. `hidden`: units of a layer. `symbols`, `texts`: of the data to train on, 0 for
    all; `made`: tones in the place of recordings.
    """

    nets: Some[NetName] = tuple(NETS)
    ways: Some[str] = tuple(WAYS)
    left: Some[Part] = (0.5, 0.2, 0.1, 0.05)
    strengths: Some[Positive] = (1e-4, 1e-3, 1e-2, 5e-2)
    steps: Count = 500
    further: Count = 250
    early: Count = 50
    characters: Count = 2
    hidden: Count = 64
    embedding: Count = 48
    batch: Count = 16
    length: Count = 48
    learning_rate: Positive = 3e-3
    warm_up: Whole = 50
    further_rate: Positive = 1e-3
    further_warm_up: Whole = 20
    series_steps: Count = 20_000
    symbols: Whole = 0
    vocabulary: Count = 5000
    texts: Whole = 0
    variants: Whole = 2
    made: bool = False

    def times(self, net: NetName) -> int:
        """How many times as many steps `net` has as are set."""
        return self.characters if net == "lstm" else 1

    def check(self) -> None:
        unknown = [way for way in self.ways if way not in WAYS]
        if unknown:
            raise ValueError(f"ways is {', '.join(self.ways)}, expected some of {', '.join(WAYS)}.")


SMOKE = Settings(
    nets=("series",),
    ways=("prune", "fold", "rewind", "rigl", "shrink", "direct", "factorise", "lasso", "aware"),
    left=(0.5,),
    strengths=(1e-3,),
    steps=8,
    further=6,
    early=2,
    hidden=16,
    embedding=8,
    batch=4,
    length=16,
    warm_up=2,
    further_warm_up=1,
    series_steps=1000,
    symbols=5000,
)
