"""A report's page taken apart, and the data of a study for one."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Parses a page; keeps tags, attributes, text, and what was left open or closed without being open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.tags, self.text, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


EXTRAS = {
    "command": "sparsernn run shakespeare --seed 0",
    "runs": [
        {
            "row": "dense",
            "seed": 0,
            "measured": {"test_bpc": 2.2, "weights": 900, "ms": 5.0},
            "paper": {"test_bpc": 2.1},
        },
        {"row": "equal size", "seed": 0, "measured": {"test_bpc": 2.4, "weights": 300, "ms": 2.0}},
        {"row": "sparse", "seed": 0, "measured": {"test_bpc": 2.25, "weights": 300, "ms": 0.5, "units": [3, 4]}},
        {"row": "sparse", "seed": 1, "measured": {"test_bpc": 2.35, "weights": 300, "ms": 0.5, "units": [3, 4]}},
    ],
    "layer_times": {"rnn.l0": {"before": 2.0, "after": 0.3}, "head": {"before": 0.5, "after": 0.4}},
    "history": {"step": [0, 10, 20], "loss": [3.0, None, 2.0], "kept": [1.0, 0.5, 0.4], "target": [0.4] * 3},
    "benchmark": [{"work": "one step", "against": "torch", "ratio": 14.2, "spread": 0.05, "max_error": 3e-7}],
    "checks": {"same outputs": "3.1e-7 at most", "seeds": 2},
}
