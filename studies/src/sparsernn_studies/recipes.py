"""The studies by their names, as commands take them."""

from __future__ import annotations

import difflib
from typing import Any

from .darji.graphs import RandomGraphs
from .darji.prune import Darji
from .darji.prune_graphs import PrunedGraphs
from .demeester.lm import LanguageModel
from .demeester.pos import Pos
from .demeester.recite import Recite
from .liu.ptb import Selfish
from .lobacheva.agnews import AgNews
from .lobacheva.char import Characters
from .lobacheva.imdb import Imdb
from .lobacheva.word import Words
from .settings import SettingsError
from .stories.blocks import Blocks
from .stories.folding.study import Fold
from .stories.methods.study import Methods
from .stories.reber import Reber
from .stories.shakespeare import Shakespeare
from .stories.spoken_digits import SpokenDigits
from .stories.targets import Targets
from .study import Study
from .wang.mnist import Wang
from .wen.bidaf import Bidaf
from .wen.ptb import Ptb
from .wen.rhn import Rhn

_ALL: tuple[type[Study[Any, Any]], ...] = (
    Shakespeare,
    Reber,
    Blocks,
    SpokenDigits,
    Pos,
    Recite,
    LanguageModel,
    Imdb,
    Characters,
    Words,
    AgNews,
    Wang,
    Ptb,
    Selfish,
    Rhn,
    Bidaf,
    Targets,
    Fold,
    Methods,
    RandomGraphs,
    Darji,
    PrunedGraphs,
)
RECIPES: dict[str, type[Study[Any, Any]]] = {study.name: study for study in _ALL}


def find(name: str) -> type[Study[Any, Any]]:
    """The study `name`. Raises SettingsError, which offers the nearest names, if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    # One that is nearly the word, else those that resemble it, else all.
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3) or sorted(RECIPES)
    offered = " or ".join(near)
    raise SettingsError(f"There is no recipe {name!r}; did you mean {offered}? `sparsernn list` shows them all.")
