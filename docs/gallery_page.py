"""The page of models that ship in packages, made from results/gallery by `python docs/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies import NOTE, line, svg

from sparsernn.files import write_atomically

EIGHT = """from importlib.resources import files
import torch, sparsernn as srn

model = srn.from_onnx(files("silero_vad") / "data/silero_vad.onnx", inputs={"sr": 16000})
example = {"input": torch.zeros(1, 576), "state": torch.zeros(2, 1, 128)}
stream = srn.accelerate(model).stream(1, example=example, states={"state": 1})
for samples in torch.randn(3, 1, 576):  # in place of 512 samples of a microphone and the 64 before them
    print(float(stream.step(samples)[0]))
"""
PAGE = f"""# Models that ship trained

After this page you know how small and fast trained models of public packages can be made without their training data,
and you can repeat it.

{NOTE}

Public packages ship trained recurrent models, but not the data that they were trained on. Each of these is read from
its installed package, compared with the package's own runtime (1e-5, on a sample), folded to several sizes, fine-tuned
by its own outputs, saved, and where the net has steps streamed and written as C, in int8 where all its layers are. What
it learns from are spoken digits ([free-spoken-digit-dataset](spoken-digits.md), in the folder that `--data` names;
without it synthetic sound, and other figures), or words, sentences and pictures that ship or are made on the spot.
Either whole units of the recurrent layers go, or single weights of all matrices, which files leave out. No weight is
committed here, and nothing is fetched when a model is made: `sparsernn gallery NAME`, in an environment that
`studies/src/sparsernn_studies/gallery/requirements.txt` says how to make. C needs `cc`, ddddocr a font of Debian's
fonts-wqy-microhei.

The bars (what had to be reached) were set before these figures:

- outputs that we take to be close enough: the bound in the table, or half a point of error above the original's;
- a file of at most half the bytes in float32 and a sixth in int8, of what the net's numbers take in the package's file;
- a step in a third of the time of the package's own runtime (a whole call, of nets that the package calls with whole
  sequences).

Sounds, words and texts are split by the hash of their names: three fifths are calibrated and trained on, one is
validated on and chooses among the sizes and precisions that are listed, one is tested on and gives all figures but
those *validated*. The lists, steps and rates were set by hand over several runs whose test figures were seen, so the
tests are not fresh; there is one seed, and what is held or missed by less than the parts differ is undecided. The
people who speak are the same in all parts, and sentences and forms of words share phrases across them. A bar that is
an error over the original's is over the original's of the same part. Fine-tuning is 60 to 300 steps and is left out
where it did not help on validation.

*Weights kept* is of the recurrent layers where units went, of the matrices that were thinned where single weights went.
In int8 matrices are rounded by `fold(..., to=1, bits=8)`; where float32 holds the bar and that does not, the layer that
suffers most stays in bfloat16, then the next. On a processor without int8 products ours multiplies such weights in
float32; C does not, rounds what flows between the layers as well, and is further off. Instructions are of a step on an
emulated Cortex-M4, its flash and RAM in bytes; whether that part has as much is another matter. The bars are of files
and streams; C stores single zeros, so its flash is that of the whole part that takes steps where weights went one by
one.

*Ours, whole* is the net as it came: where single weights go, all speed is the kernels', and folding adds the smaller
file; where units go, as in ddddocr, speed is mostly folding's. The row of 100% is without folding as well. *Its own* is
the package's runtime with what Python it has round the net; *onnxruntime, whole* is torch's export of the same net and
a stricter rival, so that *all of them* has both. *C* is compiled by `cc -O3 -march=native` and takes 20 steps of one
input in a call, where the others pay for a call of Python at each step.

All times of one table were taken in turn in one process, on a machine with other work: compare them with each other
alone.

## In eight lines

`pip install "sparsernn[onnx]" silero-vad`, then

```py
{EIGHT}```

runs the package's voice detector on compiled kernels; [from somebody else's file](from-onnx.md) says what else can be
done with it.
"""
LIMITS = {
    "Resemblyzer": "half of the bytes in float32 would need 46% of the weights, and those do not agree well enough. "
    "The first layer, whose inputs range over five orders of size, stays in bfloat16. A quarter of an hour of digits "
    "spoken by six people is all that it learned from here. In a window all 160 frames are multiplied at once, by "
    "the package's runtime as by ours: less is gained than in steps of one frame.",
    "DTLN-1": "the package runs this net and DTLN-2 one after the other, with Fourier transforms between. Each is "
    "judged and timed alone here, the second on what the whole first one leaves; both small nets together were not "
    "measured.",
    "DTLN-2": "four numbers of ten are the two matrices of a learned basis of 512 samples, through which every "
    "sample passes. With 46% of its weights, which half of the bytes would take, it is two decibels under the bar "
    "after its 160 steps; a sixth of the bytes in int8 would take about 50%. C in int8 is a little under the bar on "
    "the test.",
    "arabic-diacritizer": "the net has no step. Its attention takes a tanh for each pair of letters and each of 512 "
    "numbers, which torch works out as before, and 46% of all weights left here and there are read no faster than "
    "all: a smaller file, not a faster call. onnxruntime runs torch's export faster than ours. Whole units were not "
    "tried. Sentences share phrases across the parts, and the original was probably trained on all of them.",
    "ddddocr": "half of the bytes in float32 would take 42% of the recurrent weights, which miss the bar on "
    "validation. The bar is tight for so few pictures: one wrong letter of the 1,000 is 0.05 points of the mean, "
    "what was chosen on validation holds it by no letter in float32 and misses it by three in int8, and of captchas "
    "alone it would be missed in both. Two thirds of the multiplications of a call are the scores of 8,210 "
    "characters at each place of the picture, one plain product: a call is shorter by little more than what went. "
    "All was read in captchas of one package and print of one font, of which fine-tuning saw most of the Chinese "
    "characters once or not at all.",
    "g2p_en": "a step is one phoneme of the decoder; the encoder, a step for each letter, is neither timed nor in "
    "the C, so that the C has no phoneme error.",
    "silero-vad": "in C in int8 0.8% of the decisions are others, where 0.5% are allowed; C in float32 and our files "
    "hold the bar. All of that was heard on digits by six people, recorded at 8 kHz: less than what the net was "
    "trained on.",
}
COLOURS = {"float32": "#1f77b4", "int8": "#d62728"}
BARS = {"float32": 2.0, "int8": 6.0, "speed": 3.0}


def gallery_page(results: Path, target: Path) -> None:
    """Write docs/gallery.md and a figure for each model; nothing without results."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((results / "gallery").glob("*.json"))]
    if not found:
        return
    titles = ["model", "agreement", "bytes, float32", "bytes, int8", "a step against its own runtime"]
    titles += ["against torch's export in onnxruntime", "bars"]
    parts = [PAGE, "## All of them", "", line(titles), line(["---", *["---:"] * 5, "---"])]
    parts += [line(_summary(content)) for content in found]
    for content in found:
        name = f"gallery-{content['name'].replace(' ', '-')}.svg"
        svg(_figure(content), target / "figures" / name)
        parts += ["", *_section(content, name)]
    write_atomically(target / "gallery.md", "\n".join([*parts, ""]))


def reached(content: dict[str, Any]) -> dict[str, float]:
    """How many times fewer bytes and less time, of the smallest files that agree well enough; 1 where none does."""
    found = {}
    for form in ("float32", "int8"):
        chosen = content["chosen"][form]
        found[form] = 1.0 if chosen is None else content["bytes"] / content["sizes"][chosen][f"bytes_{form}"]
    own = min(us for name, us in content["us"].items() if name.startswith("its own"))
    return found | {"speed": own / content["us"]["ours"]}


def _summary(content: dict[str, Any]) -> list[str]:
    bar, got = content["bar"], reached(content)
    missed = [name for name, least in BARS.items() if got[name] < least] + _disagreeing(content)
    cells = [f"[{content['name']}](#{_anchor(content)})", _bar(bar)]
    for form in ("float32", "int8"):
        chosen = content["chosen"][form]
        row = None if chosen is None else content["sizes"][chosen]
        cells.append("no size agrees" if row is None else f"{row[f'bytes_{form}']:,} ({got[form]:.1f}x fewer)")
    cells.append(f"{got['speed']:.1f}x faster" + ("" if _call(content) == "step" else f", a {_call(content)}"))
    exported = content["us"].get("onnxruntime, whole")
    cells.append("-" if exported is None else f"{exported / content['us']['ours']:.1f}x")
    return [*cells, "all reached" if not missed else f"missed: {', '.join(missed)}"]


def _disagreeing(content: dict[str, Any]) -> list[str]:
    """Forms whose chosen size holds the bar on validation and not on the test."""
    bar, found = content["bar"], []
    for form, chosen in content["chosen"].items():
        if chosen is not None:
            value = content["sizes"][chosen][form][bar["metric"]]
            found += [] if (value <= bar["bound"] if bar["at_most"] else value >= bar["bound"]) else [form]
    return [f"agreement in {form} on the test" for form in found]


def _call(content: dict[str, Any]) -> str:
    """What was timed."""
    return content.get("call", "step")


def _bar(bar: dict[str, Any]) -> str:
    return f"{bar['metric']} at {'most' if bar['at_most'] else 'least'} {bar['bound']:g}"


def _anchor(content: dict[str, Any]) -> str:
    return content["name"].lower().replace(" ", "-").replace(",", "")


def _section(content: dict[str, Any], figure: str) -> list[str]:
    bar, metric, name = content["bar"], content["bar"]["metric"], content["name"]
    text = f"{content['package']} ({content['licence']}), `{content['file']}`: {content['bytes']:,} bytes of numbers. "
    text += f"Off from the package's own runtime by {content['difference']:.0e} at most. Data: {content['data']}. "
    lines = [
        f"## {content['name']}",
        "",
        text + content["note"],
        "",
        *([f"Limits: {LIMITS[name]}", ""] if name in LIMITS else []),
    ]
    lines += [f"![{metric} against bytes of the file](figures/{figure})", ""]
    titles = ["weights kept", "what went", "folded", "and fine-tuned", "validated", "in int8", "validated"]
    lines += [line([*titles, "bytes, float32", "bytes, int8"]), line(["---:", "---", *["---:"] * 7])]
    for number, row in enumerate(content["sizes"]):
        cells = [f"{row['share']:.0%}", _gone(row)]
        cells.append("-" if row["folded"] is None else f"{row['folded'][metric]:.4g}")
        for form in content["chosen"]:
            cells += [f"{row[form][metric]:.4g}", f"{row['validation'][form]:.4g}"]
        for form, chosen in content["chosen"].items():
            mark = "**" if chosen == number else ""
            cells.append(f"{mark}{row[f'bytes_{form}']:,}{mark}")
        lines.append(line(cells))
    held = f"the bar is {_bar(bar)}{_validated_bar(content)}; in bold the smallest files that held it on validation."
    lines += ["", f"*{metric[0].upper()}{metric[1:]}; {held}{_others(content)}{_exact(content)}*", ""]
    lines += _times(_call(content), content["us"])
    if "us of a step" in content:
        lines += ["", *_times("step", content["us of a step"])]
    lines += _in_c(content)
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("torch", "numba"))
    folder = " --data FOLDER" if "digits" in content["data"] else ""
    again = f"Again: `sparsernn gallery {content['command']}{folder}`; {content['device']}, {versions}, "
    return [*lines, "", f"{again}one thread's own time, {content['date']}."]


def _times(call: str, us: dict[str, float]) -> list[str]:
    rows = [line([engine, f"{time:.1f}"]) for engine, time in us.items()]
    return [line([f"a {call} of the", "us"]), line(["---", "---:"]), *rows]


def _in_c(content: dict[str, Any]) -> list[str]:
    """The table of the C of the chosen sizes; nothing where there is none."""
    if not content.get("c"):
        return []
    metric = content["bar"]["metric"]
    titles = ["C", f"{metric} on the test", "off from our stream", "flash", "RAM", "instructions of a step"]
    lines = ["", line(titles), line(["---", *["---:"] * 5])]
    for form, own in content["c"].items():
        agreement = f"{own['test'][metric]:.4g}" if "test" in own else "-"
        counted = "-" if own["instructions"] is None else f"{own['instructions']:,}"
        lines.append(line([form, agreement, f"{own['off by']:.0e}", f"{own['flash']:,}", f"{own['ram']:,}", counted]))
    return lines


def _validated_bar(content: dict[str, Any]) -> str:
    """The bound on validation, where it is over the original's error there."""
    bar, original = content["bar"], content["original"][content["bar"]["metric"]]
    if not bar["at_most"]:
        return ""
    there = content["sizes"][0]["validation"]["float32"] + bar["bound"] - original
    return f" on the test and {there:.4g} on validation"


def _others(content: dict[str, Any]) -> str:
    """Other metrics of the original and of the chosen sizes, on the test."""
    found = {"original": content["original"]}
    found |= {form: content["sizes"][n][form] for form, n in content["chosen"].items() if n is not None}
    names = [name for name in content["original"] if name != content["bar"]["metric"]]
    said = [f"{name}: {', '.join(f'{own[name]:.4g} ({form})' for form, own in found.items())}" for name in names]
    return f" Of that, {'; '.join(said)}." if said else ""


def _exact(content: dict[str, Any]) -> str:
    """Which layers the int8 files keep in bfloat16."""
    kept = {n: row.get("precision", "int8") for n, row in enumerate(content["sizes"])}
    said = []
    for n, own in kept.items():
        if isinstance(own, dict):
            row, layers = content["sizes"][n], [layer for layer in own if layer != "*"]
            said.append(f"{', '.join(layers)} in that of {row['share']:.0%} ({row['level'] or 'whole'})")
    return f" In int8 files there is bfloat16: {'; '.join(said)}." if said else ""


def _gone(row: dict[str, Any]) -> str:
    left = "" if row["units"] is None else f", {', '.join(map(str, row['units']))} left"
    return {None: "-", "unit": f"units{left}", "weight": "single weights"}[row["level"]]


def _figure(content: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    metric, bar = content["bar"]["metric"], content["bar"]
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for form, colour in COLOURS.items():
        for level, style in (("unit", "-o"), ("weight", "--s")):
            rows = [row for row in content["sizes"] if row["level"] in (None, level)]
            points = sorted((row[f"bytes_{form}"] / 1000, row[form][metric]) for row in rows)
            axes.plot(*zip(*points), style, color=colour, markersize=4, label=f"ours, {form}, {level}s gone")
    original = content["original"][metric]
    axes.plot(content["bytes"] / 1000, original, "*", color="black", markersize=12, label="original")
    axes.axhline(bar["bound"], color="#bbbbbb", linestyle="--", linewidth=1)
    axes.set(xlabel="kB of the file", ylabel=metric, xlim=(0, None), title=content["name"])
    axes.legend()
    return figure
