"""What Demeester et al. (arXiv 1808.08720) say of sparseness that is there from the start."""

from __future__ import annotations

from ..claims import Claim, Measured, beats, more

CONVERGED = 1.5  # training perplexity of a text that is known by heart
_TAGS = (beats("test_accuracy", "dense", "baseline", "each word's commonest tag", more=True, by=0.1),)
OF_TAGS = (
    *(
        Claim(
            f"{density:.0%} of the embedding: short vectors for rare words are better than {said}",
            "points better",
            more("test_accuracy", f"sparse-{density:g}", f"{other}-{density:g}", 100),
            at_least=0.0,
            guards=_TAGS,
        )
        for density in (0.1, 0.25, 0.5)
        for other, said in (("narrow", "narrow ones for all"), ("reversed", "short ones for frequent words"))
    ),
    *(
        Claim(
            f"{density:.0%} of the embedding: at most half a point worse than all of it",
            "points worse",
            more("test_accuracy", "dense", f"sparse-{density:g}", 100),
            at_most=0.5,
            guards=_TAGS,
        )
        for density in (0.1, 0.25, 0.5)
    ),
    *(
        Claim(
            f"{density:.0%} of the embedding: better than all of it on words that training never saw",
            "points better",
            more("test_accuracy_unknown", f"sparse-{density:g}", "dense", 100),
            at_least=0.0,
            guards=_TAGS,
        )
        for density in (0.1, 0.25, 0.5)
    ),
)


def _recited(rows: Measured) -> str:
    best = min(row["train_perplexity"] for row in rows.values())
    return "" if best < CONVERGED else f"no net knows the text by heart yet (perplexity {best:.3g} at best)"


OF_RECITING = tuple(
    Claim(
        f"Wider and sparse ({said}) recites better than dense with as many weights",
        "of the dense net's perplexity",
        lambda rows, row=row: rows[row]["train_perplexity"] / rows["dense"]["train_perplexity"],
        at_most=1.0,
        guards=(_recited,),
    )
    for row, said in (("sparse-hidden", "recurrent layers"), ("sparse-all", "recurrent layers and embedding"))
)
OF_LANGUAGE = (
    Claim(
        "AWD-LSTM: wider and sparse has less perplexity than dense with as many weights",
        "less perplexity",
        more("test_perplexity", "dense", "sparse-hidden"),
        at_least=0.0,
        guards=(beats("test_perplexity", "dense", "bigram", "a smoothed bigram", more=False, by=0.1),),
    ),
)
