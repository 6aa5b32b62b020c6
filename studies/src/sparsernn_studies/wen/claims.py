"""What Wen et al. (arXiv 1709.05027) say of intrinsic sparse structures."""

from __future__ import annotations

from ..claims import Claim, Guard, Measured, beats, more, percent_more


def _tried(*rows: str) -> Guard:
    """A guard: dropout and decay of these rows were each chosen from as many tries, of two or more."""

    def guard(found: Measured) -> str:
        tries = {found[row].get("tries", 1) for row in rows}
        return "" if len(tries) == 1 and min(tries) > 1 else f"dropout and decay of {' and '.join(rows)} were not tuned"

    return guard


OF_WORDS = (
    Claim(
        "ISS: at most 1% more perplexity than the dense net",
        "% more",
        percent_more("test_perplexity", "iss", "dense"),
        at_most=1.0,
        guards=(_tried("dense", "iss"),),
    ),
    Claim(
        "ISS: less perplexity than nets of the learnt sizes, trained directly",
        "less perplexity",
        more("test_perplexity", "direct", "iss"),
        at_least=0.0,
        guards=(_tried("direct", "iss"),),
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
            guards=(_tried("dense", f"blocks-{share}"),),
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
_SPAN = (beats("f1", "dense", "baseline", "the commonest span", more=True, by=0.1, best=100.0),)
OF_QUESTIONS = (
    Claim(
        "Targets from a trained net, trained on: F1 at most a point below that net, which was not",
        "points worse",
        more("f1", "dense", "target-tuned"),
        at_most=1.0,
        guards=_SPAN,
    ),
    *(
        Claim(
            f"ISS from {said}: F1 at most a point below that of {beside}",
            "points worse",
            more("f1", "dense", row),
            at_most=1.0,
            guards=_SPAN,
        )
        for row, said, beside in (
            ("tuned-0.003", "a trained net, trained on", "that net, which was not"),
            ("iss-0.003", "the start, with half the dropout", "the dense net"),
        )
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
        for row, said in (
            ("target", "Targets from the start"),
            ("target-tuned", "Targets from a trained net"),
            ("iss-0.003", "ISS from the start"),
            ("tuned-0.003", "ISS from a trained net"),
        )
    ),
)
