"""What Wen et al. (arXiv 1709.05027) say of intrinsic sparse structures."""

from __future__ import annotations

from ..claims import Claim, beats, more, needs, percent_more

_EQUAL = needs("relaxed", "the dense net has neither the dropout nor the decay that suit its size")
OF_WORDS = (
    Claim(
        "ISS: at most 1% more perplexity than the dense net",
        "% more",
        percent_more("test_perplexity", "iss", "dense"),
        at_most=1.0,
        guards=(_EQUAL,),
    ),
    Claim(
        "ISS: less perplexity than nets of the learnt sizes, trained directly",
        "less perplexity",
        more("test_perplexity", "direct", "iss"),
        at_least=0.0,
        guards=(_EQUAL,),
    ),
    Claim(
        "ISS: fewer multiply-adds than the dense net",
        "% of the dense net's",
        lambda rows: 100 * rows["iss"]["mult_adds"] / rows["dense"]["mult_adds"],
        at_most=100.0,
    ),
    *(
        Claim(
            f"16x1 blocks, {share}% of the weights: at most 1% more perplexity than the dense net",
            "% more",
            percent_more("test_perplexity", f"blocks-{share}", "dense"),
            at_most=1.0,
            guards=(_EQUAL,),
        )
        for share in (20, 40)
    ),
    *(
        Claim(
            f"{said} in int8: at most a thousandth more perplexity than in float32",
            "% more",
            lambda rows, row=row: 100 * (rows[row]["test_perplexity_int8"] / rows[row]["test_perplexity"] - 1),
            at_most=0.1,
        )
        for row, said in (("iss", "ISS"), ("blocks-20", "Blocks at 20%"), ("blocks-40", "Blocks at 40%"))
    ),
)
_BIGRAM = (beats("test_perplexity", "dense", "bigram", "a smoothed bigram", more=False, by=0.1),)
OF_SELFISH = (  # Liu et al. (arXiv 2101.09048)
    Claim(
        "Selfish-RNN: no more perplexity than the dense net, as many steps",
        "% more",
        percent_more("test_perplexity", "rewired", "dense"),
        at_most=0.0,
        guards=_BIGRAM,
    ),
    Claim(
        "Selfish-RNN: less perplexity than gradual pruning to as many weights, as many steps",
        "less perplexity",
        more("test_perplexity", "gradual", "rewired"),
        at_least=0.0,
        guards=_BIGRAM,
    ),
)
_SPAN = (beats("f1", "dense", "baseline", "the commonest span", more=True, by=0.1, best=100.0),)
OF_QUESTIONS = (
    Claim(
        "Targets from a trained net, trained on: F1 at most a point below that net, which was not",
        "points worse",
        more("f1", "dense", "target-tuned"),
        at_most=1.0,
        guards=_SPAN,
    ),
    Claim(
        "Targets from the start: better F1 than nets of the learnt sizes, trained directly",
        "points better",
        more("f1", "target", "direct"),
        at_least=0.0,
        guards=_SPAN,
    ),
    *(
        Claim(
            f"{said}: every question has the answer that it had before the surgery",
            "other answers",
            lambda rows, row=row: rows[row]["questions"] - rows[row]["same_answers"],
            at_most=0.5,
        )
        for row, said in (("target", "Targets from the start"), ("target-tuned", "Targets from a trained net"))
    ),
)
