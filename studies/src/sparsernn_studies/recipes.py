"""The recipes: each is a Python function that makes the rows of one table."""

from __future__ import annotations

import difflib
from typing import Any

from .darji.graphs import RandomGraphs
from .darji.prune import Darji
from .darji.prune_graphs import PrunedGraphs
from .demeester.lm import LanguageModel
from .demeester.pos import Pos
from .demeester.recite import Recite
from .lobacheva.agnews import RECIPE as LOBACHEVA_AGNEWS
from .lobacheva.char import RECIPE as LOBACHEVA_CHAR
from .lobacheva.imdb import RECIPE as LOBACHEVA_IMDB
from .lobacheva.word import RECIPE as LOBACHEVA_WORD
from .settings import SettingsError
from .stories.blocks import Blocks
from .stories.reber import Reber
from .stories.shakespeare import Shakespeare
from .stories.spoken_digits import RECIPE as SPOKEN_DIGITS
from .stories.targets import Targets
from .wang.mnist import Wang
from .wen.bidaf import RECIPE as WEN_BIDAF
from .wen.ptb import RECIPE as WEN_PTB
from .wen.rhn import RECIPE as WEN_RHN

_ALL = (
    Shakespeare,
    Reber,
    Blocks,
    SPOKEN_DIGITS,
    Pos,
    Recite,
    LanguageModel,
    LOBACHEVA_IMDB,
    LOBACHEVA_CHAR,
    LOBACHEVA_WORD,
    LOBACHEVA_AGNEWS,
    Wang,
    WEN_PTB,
    WEN_RHN,
    WEN_BIDAF,
    Targets,
    RandomGraphs,
    Darji,
    PrunedGraphs,
)
RECIPES: dict[str, Any] = {recipe.name: recipe for recipe in _ALL}


def find(name: str) -> Any:
    """The recipe `name`. Raises SettingsError, which offers the nearest names, if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    # One that is nearly the word, else those that resemble it, else all.
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3) or sorted(RECIPES)
    offered = " or ".join(near)
    raise SettingsError(f"There is no recipe {name!r}; did you mean {offered}? `sparsernn list` shows them all.")
