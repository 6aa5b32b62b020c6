"""Mistakes that are easy to make in this package, as data: each replaces one piece of the source."""

from . import learn, numeric, rewire, structure, surgery
from .bug import Bug as Bug

BUGS: tuple[Bug, ...] = (*structure.BUGS, *numeric.BUGS, *surgery.BUGS, *learn.BUGS, *rewire.BUGS)
