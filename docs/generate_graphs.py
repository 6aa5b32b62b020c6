"""Write docs/graphs.md and its pictures from results/darji-graphs and results/darji-prune-graphs."""

from __future__ import annotations

from pathlib import Path

from sparsernn.files import write_atomically
from sparsernn_studies.graphs import page
from sparsernn_studies.graphs.draw import draw
from sparsernn_studies.graphs.families import GraphSpec
from sparsernn_studies.graphs.study import length_alone, strings
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"ba": GraphSpec("ba", 24, 0.0, 3), "ws": GraphSpec("ws", 24, 0.1, 3)}


def text(results: Path = ROOT / "results") -> str:
    """The page. Raises LookupError where there are no results of darji-graphs."""
    graphs = collect(results, "darji-graphs", "cpu")
    pruned = collect(results, "darji-prune-graphs", "cpu")
    if not any(r.row == "graphs" for r in graphs):
        raise LookupError("there are no results of darji-graphs: sparsernn run darji-graphs --scale cpu")
    study, heard = page.Study(graphs), page.Study(graphs, "all")
    s, verdicts = study.settings, page.verdicts(study)
    every = [each for by in verdicts.values() for each in by]
    plain, controlled = (sum(each[n].startswith("as there") for each in every) for n in (1, 2))
    fitted = page.regressions(study)
    alone = length_alone(strings(s["strings"], s["longest"], s["graph_seed"]))
    lacking = [name for cell, name in page.CELLS.items() if cell not in study.cells]
    owed = f" Owed, by the same command, which takes `--set cells=...`: {', '.join(lacking)}." if lacking else ""
    nodes, words = s["nodes"], ", ".join(page.CELLS[c] for c in study.cells)
    best = {c: max(m[k]["all"] for k in ("ridge", "forest", "adaboost")) for c, m in fitted.items()}
    out = {c: max(min(m[k]["held_out"].values()) for k in ("ridge", "forest", "adaboost")) for c, m in fitted.items()}
    listed = ", ".join(f"{page.CELLS[c]} {value:.2f}" for c, value in best.items())
    worst = ", ".join(f"{page.CELLS[c]} {value:.2f}" for c, value in out.items())
    prune = page.prune_table(pruned, RECIPES["darji-prune-graphs"].labels) if pruned else page.MISSING
    return f"""# Graphs as structure

After this page you know whether the properties of a random graph tell how well a recurrent net of its structure learns.

Made by `python docs/generate.py` from the JSON files in `results/`; do not edit.

Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917) took random graphs as the structure of recurrent
nets and asked which of their properties go with accuracy. Here is the study again on {int(study.plain.sum())} graphs
of {nodes[0]} to {nodes[1]} nodes and {int((study.null > 0).sum())} null models, with {words}; weights and batches of
seeds {", ".join(map(str, study.seeds))}.
Each net trains for {s["steps"]} steps of {s["batch"]} strings, so accuracy says how quickly a net learns as well as how
well. `sparsernn run darji-graphs --scale cpu --seed N` does it again.{owed}

What differs from the original: every gate of a unit has its node's edges (there the masks of LSTM and GRU were
scrambled, so its figures for both are of other graphs); padding is never read; valid and invalid strings have the same
letters; the input is the same for every graph (there the number of sources set the width of the embedding); all sinks
are read out; Barabási-Albert graphs have one source each by construction, so the number of sources tells families apart
as well as graphs, and all is done again with every node reading the input; an edge over several layers acts as any
other edge; the rewiring probability of Watts-Strogatz graphs is {", ".join(map(str, s["rewirings"]))} in turn (there 1,
which leaves no small world).

As many strings of each length are valid as invalid: a guess by a string's length alone is right for
{100 * alone:.1f}% of the test.

![A Barabási-Albert graph by layers](graphs-ba.svg)
![A Watts-Strogatz graph by layers](graphs-ws.svg)

Sources are green, sinks orange; dashed edges pass over a layer.

The original study's five questions, in our words, and what we find.

## 1. How do nets with random structure do?

Mean and deviation of test accuracy over graphs:

{page.families_table(study)}
The same graphs with every node reading the input:

{page.families_table(heard)}
The original has Watts-Strogatz ahead of Barabási-Albert for every cell (tanh .893 to .842, relu .829 to .728, LSTM .976
to .915, GRU .984 to .928).

## 2. Which properties go with accuracy?

In brackets 95% intervals (Fisher); bold where they leave out zero.

{page.correlations_table(study, "Pearson's r", study.pearson)}
Where every node reads the input, how many sources there are decides no longer which nodes hear it:

{page.correlations_table(heard, "Pearson's r, all nodes read", heard.pearson)}
## 3. Is it the property, or the size?

The same with the logarithms of the number of weights, of sources and of layers controlled (a property that is itself
one of them: without it):

{page.correlations_table(study, "partial r", study.partial)}
The original's figures beside ours; "as there" where our interval over the graphs leaves out zero with the same sign:

{page.verdicts_table(study, verdicts)}
Of the original's {len(every)} correlations {plain} are seen as there; with sizes controlled {controlled} are. These
intervals are over graphs, with accuracies that are means over the seeds, and are not corrected for their number: what
the seeds say is in [what holds](claims.md).

Null models, trained in the same way, paired with the graphs that they were made from:

{page.nulls_table(study)}
And where every node reads the input:

{page.nulls_table(heard)}
## 4. Can accuracy be predicted from properties?

R² over ten folds; "sizes alone" sees the numbers of weights, sources and layers; the last column is fitted to two
families and predicts the third. The original's figures are of one split with 20 test graphs.

{page.regressions_table(fitted)}
{page.importance_table(fitted)}
At best, over folds: {listed}. On the worst family that it was not fitted to, the best of the three models has: {worst}.
A figure below zero is worse than the mean.

## 5. Does pruning help on top of structure?

Dense stacks, graphs, and both pruned, at equal numbers of weights (`sparsernn run darji-prune-graphs --scale cpu`):

{prune}"""


def main() -> None:
    for name, spec in PICTURES.items():
        draw(spec.make(), ROOT / "docs" / f"graphs-{name}.svg", f"{page.FAMILY_NAMES[name]}, {spec.nodes} nodes")
    write_atomically(ROOT / "docs" / "graphs.md", text())


if __name__ == "__main__":
    main()
