"""Bayesian sparsification: noise on weights, gates and units, and what is lost in it goes."""

from .bayes import Bayes as Bayes
from .bayes import BayesLevel as BayesLevel
