"""Sphinx: the pages are Markdown (MyST); `{api}` shows a public name with its docstring. Built by `make docs`."""

from __future__ import annotations

import importlib
import inspect
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sparsernn

project = "sparsernn"
author = "The sparsernn maintainers"
copyright = author
version = release = sparsernn.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sparsernn {version}"


class Api(SphinxDirective):
    """`{api}` with names from `sparsernn`, one a line: signature, docstring and public methods of each, as written."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [section for line in self.content if line.strip() for section in [_entry(line.strip())]]


def _entry(path: str) -> nodes.section:
    place, _, name = f"sparsernn.{path}".rpartition(".")
    thing = getattr(importlib.import_module(place), name)
    section = nodes.section(ids=[path.lower().replace(".", "-").replace("_", "-")])
    section += nodes.title(path, path)
    section += _documented(path, thing)
    if inspect.isclass(thing):
        for method, found in inspect.getmembers(thing, inspect.isroutine):
            if not method.startswith("_") and (inspect.getdoc(found) or "") and _is_ours(found):
                section += _documented(f"{name}.{method}", found)
    return section


def _is_ours(found: object) -> bool:
    return (getattr(found, "__module__", None) or "").startswith("sparsernn")


def _documented(name: str, thing: object) -> list[nodes.Node]:
    try:
        # Annotations are kept as text, and shown without its quotes.
        signature = re.sub(r"(: |-> )(['\"])(.*?)\2(?=[,) ]|$)", r"\1\3", str(inspect.signature(thing)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        signature = ""
    text = f"{name}{signature}\n\n{inspect.getdoc(thing) or ''}"
    block = nodes.literal_block(text, text)
    block["language"] = "none"
    return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api", Api)
    return {"parallel_read_safe": True}
