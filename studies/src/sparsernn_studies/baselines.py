"""What a task gives without a recurrent net: the figures that a net has to beat before anything is said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .tasks.pos import Sentences
from .tasks.squad import Question


def unigram_bits(train_N: Tensor, test_N: Tensor, symbols: int) -> float:
    """Bits per symbol of the test text by each symbol's share of the training text, one more counted of each."""
    counts_V = torch.bincount(train_N, minlength=symbols).double() + 1
    return float(-(counts_V / counts_V.sum())[test_N].log2().mean())


def bigram_bits(train_N: Tensor, test_N: Tensor, symbols: int) -> float:
    """Bits per symbol of the test text by the symbol before, smoothed after Kneser and Ney (interpolated).

    One discount, n1 / (n1 + 2 n2) of the counts of counts (Chen and Goodman, Computer Speech & Language 13, 1999); what
    it takes goes to symbols by the number of others that they follow. The first symbol of the text is not predicted.
    """
    pairs = train_N[:-1] * symbols + train_N[1:]
    seen, counts = pairs.unique(return_counts=True)
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    discount = ones / (ones + 2 * twos) if ones else 0.5
    before, after = seen // symbols, seen % symbols
    total_V = torch.bincount(train_N[:-1], minlength=symbols).double()
    kinds_V = torch.bincount(before, minlength=symbols).double()  # different symbols that follow each
    lower_V = torch.bincount(after, minlength=symbols).double() + 1  # different ones that it follows, and one more
    lower_V /= lower_V.sum()
    history, target = test_N[:-1], test_N[1:]
    place = torch.searchsorted(seen, history * symbols + target).clamp(max=len(seen) - 1)
    found = seen[place] == history * symbols + target
    own = (torch.where(found, counts[place], 0) - discount).clamp(min=0).double()
    rest = torch.where(total_V[history] > 0, discount * kinds_V[history], 1.0)
    return float(-((own + rest * lower_V[target]) / total_V[history].clamp(min=1)).log2().mean())


def majority(train_N: Tensor, test_N: Tensor) -> float:
    """Share of the test items whose class is the training part's most frequent one."""
    return float((test_N == train_N.mode().values).double().mean())


def commonest_span(train: Sequence[Question], test: Sequence[Question]) -> list[tuple[int, int, float]]:
    """For each question the first and last word that answers of the training part have most often, as far as the
    passage goes, and their share there."""
    (first, last), count = Counter(question.span for question in train).most_common(1)[0]
    ends = [len(question.passage) - 1 for question in test]
    return [(min(first, end), min(last, end), count / len(train)) for end in ends]


def commonest_tag(train: Sentences, test: Sentences) -> float:
    """Share of the test words whose tag is the one that their word has most often in the training part."""
    words_N, tags_N = torch.cat(train.words), torch.cat(train.tags)
    counts_WT = torch.zeros(int(torch.cat([words_N, *test.words]).max()) + 1, int(tags_N.max()) + 1)
    counts_WT.index_put_((words_N, tags_N), torch.ones(()), accumulate=True)
    counts_WT[counts_WT.sum(1) == 0] = counts_WT.sum(0)  # never seen: the commonest of all
    return float((counts_WT.argmax(1)[torch.cat(test.words)] == torch.cat(test.tags)).double().mean())


def linear_bag(train: Sequence[Tensor], train_N: Tensor, test: Sequence[Tensor], test_N: Tensor, symbols: int) -> float:
    """Share of the test texts whose class a linear model of their bag of words (which ones stand there) finds.

    Logistic regression of tf-idf, with scikit-learn's own strength.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def bags(texts: Sequence[Tensor]) -> Any:
        words = [text.unique() for text in texts]
        ends = np.cumsum([0, *(len(found) for found in words)])
        return csr_matrix((np.ones(ends[-1]), torch.cat(words).numpy(), ends), shape=(len(words), symbols))

    model = make_pipeline(TfidfTransformer(), LogisticRegression(max_iter=300))
    model.fit(bags(train), train_N.numpy())
    return float(model.score(bags(test), test_N.numpy()))
