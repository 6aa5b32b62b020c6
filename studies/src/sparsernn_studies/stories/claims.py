"""What the studies of our own are asked: the sentences that README and docs would like to say of them."""

from __future__ import annotations

from math import log

from ..claims import Claim, Control, more, percent_more, stands_out

BIGRAM = 3.5839  # bits of a smoothed bigram on the last tenth of tiny Shakespeare (`baselines.bigram_bits`)
_SHAKESPEARE = (stands_out("test_bpc", "dense", BIGRAM, "a smoothed bigram", more=False),)
_LONGER = Control("direct-longer", "direct", "a net of that size was not trained for as many multiply-adds")
OF_SHAKESPEARE = (
    Claim(
        "30% of the weights: at most 1.5% more bits than the dense net",
        "% more bits",
        percent_more("test_bpc", "compact", "dense"),
        at_most=1.5,
        guards=_SHAKESPEARE,
    ),
    Claim(
        "30% of the weights: fewer bits than a dense net of that size and as much compute",
        "bits fewer",
        more("test_bpc", "direct-longer", "compact"),
        at_least=0.0,
        guards=_SHAKESPEARE,
    ),
    Claim(
        "Half of the units folded, without training: at most .4 bits more than the dense net",
        "bits more",
        more("test_bpc", "folded", "dense"),
        at_most=0.4,
        guards=_SHAKESPEARE,
    ),
    Claim(
        "int8 costs at most a thousandth of the bits",
        "% more bits",
        percent_more("test_bpc", "int8", "fast"),
        at_most=0.1,
        guards=_SHAKESPEARE,
    ),
)
OF_BLOCKS = (
    Claim(
        "16x1 blocks, 10% of the weights: fewer bits than a dense net of that size and as much compute",
        "bits fewer",
        more("test_bpc", "direct-longer", "float32"),
        at_least=0.0,
        guards=(*_SHAKESPEARE, _LONGER),
    ),
    Claim(
        "16x1 blocks: bfloat16 costs at most a thousandth of the bits",
        "% more bits",
        percent_more("test_bpc", "bfloat16", "float32"),
        at_most=0.1,
        guards=_SHAKESPEARE,
    ),
)
_CHANCE = stands_out("test_accuracy", "dense", 0.1, "chance", more=True)
_LONGEST = "dense-longer"
_TAUGHT = Control(_LONGEST, "dense", "the dense net was not trained on with the same teacher for as many steps")
OF_DIGITS = (
    *(
        Claim(
            f"{said}: at most half a point worse than the dense net, trained on with the same teacher",
            "points worse",
            more("test_accuracy", _LONGEST, row, 100),
            at_most=0.5,
            guards=(_CHANCE, _TAUGHT),
        )
        for row, said in (("compact", "40% of the weights"), ("blocks", "20% of the weights"))
    ),
    Claim(
        "Blocks in int8: at most half a point worse than in float32",
        "points worse",
        more("test_accuracy", "blocks", "int8", 100),
        at_most=0.5,
        guards=(_CHANCE,),
    ),
    Claim(
        "Words in int8, trained so: at most half a point worse than the dense net, trained on with the same teacher",
        "points worse",
        lambda rows: 100 * (rows[_LONGEST]["test_accuracy"] - rows["words"]["test_accuracy_int8"]),
        at_most=0.5,
        guards=(_CHANCE, _TAUGHT),
    ),
    Claim(
        "Words in int8: a file of at most a tenth of the dense net's bytes",
        "% of the dense net's",
        lambda rows: 100 * rows["words"]["file_bytes"] / rows["dense"]["file_bytes"],
        at_most=10.0,
    ),
    Claim(
        "20% of the weights: better than a dense net of that size",
        "points better",
        more("test_accuracy", "blocks", "direct", 100),
        at_least=0.0,
        guards=(_CHANCE, _TAUGHT),
    ),
    *(
        Claim(
            f"The stream of {said} gives every recording the label that the whole file gets",
            "other labels",
            lambda rows, row=row: rows[row]["stream_recordings"] - rows[row]["stream_same_labels"],
            at_most=0.5,
        )
        for row, said in (
            ("fast", "the net"),
            ("bfloat16", "blocks in bfloat16"),
            ("int8", "blocks in int8"),
        )
    ),
)
OF_REBER = tuple(
    Claim(
        f"{cell.upper()}: a tenth of the weights, {said}, costs under 1 point",
        "points lost",
        more("test_accuracy", f"{cell}-dense", f"{cell}-{row}", 100),
        at_most=1.0,
        guards=(stands_out("test_accuracy", f"{cell}-dense", 0.5, "one answer for all strings", more=True),),
    )
    for cell in ("rnn", "lstm", "gru")
    for row, said in (("prune", "pruned in training"), ("target", "to a target"))
)


def of_targets(net: str, said: str) -> tuple[Claim, ...]:
    """A net brought to a quarter of its weights: how near it lands, and against nets of that size."""
    simple, name = (log(2), "chance") if net == "gru" else (BIGRAM, "a smoothed bigram")
    guards = (stands_out("test_loss", f"{net}-dense", simple, name, more=False),)
    return (
        Claim(
            f"{said}: within 1% of the target",
            "% off",
            lambda rows: 100 * abs(rows[f"{net}-target"]["off_target"]),
            at_most=1.0,
        ),
        *(
            Claim(
                f"{said}: less loss than a net of that size trained for as many {what}",
                "less loss",
                more("test_loss", f"{net}-{row}", f"{net}-target"),
                at_least=0.0,
                guards=guards,
            )
            for row, what in (("direct", "steps"), ("direct-longer", "multiply-adds"))
        ),
    )
