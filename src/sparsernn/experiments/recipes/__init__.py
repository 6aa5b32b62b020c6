"""The recipes: each is a Python function that makes the rows of one table."""

from __future__ import annotations

import difflib

from ._recipe import Loaded, Recipe, RecipeError, with_changes
from .blocks import RECIPE as BLOCKS
from .darji_graphs import RECIPE as DARJI_GRAPHS
from .darji_prune import RECIPE as DARJI_PRUNE
from .darji_prune_graphs import RECIPE as DARJI_PRUNE_GRAPHS
from .demeester_lm import RECIPE as DEMEESTER_LM
from .demeester_pos import RECIPE as DEMEESTER_POS
from .demeester_recite import RECIPE as DEMEESTER_RECITE
from .lobacheva_agnews import RECIPE as LOBACHEVA_AGNEWS
from .lobacheva_char import RECIPE as LOBACHEVA_CHAR
from .lobacheva_imdb import RECIPE as LOBACHEVA_IMDB
from .lobacheva_word import RECIPE as LOBACHEVA_WORD
from .reber import RECIPE as REBER
from .shakespeare import RECIPE as SHAKESPEARE
from .spoken_digits import RECIPE as SPOKEN_DIGITS
from .targets import RECIPE as TARGETS
from .wang_mnist import RECIPE as WANG_MNIST
from .wen_bidaf import RECIPE as WEN_BIDAF
from .wen_ptb import RECIPE as WEN_PTB
from .wen_rhn import RECIPE as WEN_RHN

_ALL = (
    SHAKESPEARE,
    REBER,
    BLOCKS,
    SPOKEN_DIGITS,
    DEMEESTER_POS,
    DEMEESTER_RECITE,
    DEMEESTER_LM,
    LOBACHEVA_IMDB,
    LOBACHEVA_CHAR,
    LOBACHEVA_WORD,
    LOBACHEVA_AGNEWS,
    WANG_MNIST,
    WEN_PTB,
    WEN_RHN,
    WEN_BIDAF,
    TARGETS,
    DARJI_GRAPHS,
    DARJI_PRUNE,
    DARJI_PRUNE_GRAPHS,
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}

__all__ = ["RECIPES", "Loaded", "Recipe", "RecipeError", "find", "with_changes"]


def find(name: str) -> Recipe:
    """The recipe `name`. Raises RecipeError, which offers the nearest names, if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    # One that is nearly the word, else those that resemble it, else all.
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3) or sorted(RECIPES)
    offered = " or ".join(near)
    raise RecipeError(f"There is no recipe {name!r}; did you mean {offered}? `sparsernn list` shows them all.")
