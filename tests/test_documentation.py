"""What README and docs say is true: every block of Python in them runs, and prints what the page shows."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import sparsernn
from sparsernn_studies.gallery.packages import NAMES
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import FIELDS, Result, collect

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; blocks inside HTML comments (set-up that readers need not see) count as well."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups()) for found in FENCE.finditer(page.read_text(encoding="utf-8"))]


WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture
def sandbox(tmp_path, monkeypatch) -> Iterator[Path]:
    """A temporary folder to run in; threads and random state are restored."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield tmp_path
    torch.set_num_threads(threads)


def run(page: Path) -> None:
    """Run the Python of `page` as one program; a `text` block right after a block is what that block prints."""
    found = blocks(page)
    namespace = {"__name__": page.stem.replace("-", "_")}
    line = 0
    for block, following in zip(found, [*found[1:], Block("", "")]):
        if block.language != "python":
            continue
        printed = io.StringIO()
        # Lines are counted as in a file with all blocks of the page, since reasons name the source line.
        code = compile("\n" * line + block.text, f"{page.stem}.py", "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        line += block.text.count("\n")
        if following.language == "text":
            assert following.text == printed.getvalue(), f"{page.name} shows something else after:\n{block.text}"


@pytest.mark.smoke
def test_the_readme_runs(sandbox):
    run(ROOT / "README.md")


@pytest.mark.parametrize("page", [p for p in WITH_CODE if p.name != "README.md"], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page, sandbox):
    run(page)


def test_what_a_page_shows_is_compared(tmp_path, sandbox):
    page = tmp_path / "page.md"
    text = "<!--\n```python\nx = 1\n```\n-->\n```python\nprint(x)\n```\n\n```text\n{}\n```\n"
    page.write_text(text.format(1))
    run(page)
    page.write_text(text.format(2))
    with pytest.raises(AssertionError, match="shows something else"):
        run(page)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example, sandbox, capsys):
    main = runpy.run_path(str(example))["main"]
    main()
    printed = capsys.readouterr().out
    assert printed and "False" not in printed
    assert example.name in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def test_commands_and_targets_that_are_named_exist():
    spans = [span for page in PAGES for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text("utf-8")))]
    shell = [b.text for page in PAGES for b in blocks(page) if b.language == "console"]
    text = "\n".join(["", *spans, *shell])
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\nmake ([\w-]+)", text)) <= set(targets)
    commands = set(re.findall(r"\nsparsernn ([\w-]+) ?([\w-]*)", text))
    known = {"list", "run", "sweep", "inspect", "export-c", "bench", "report", "listen", "answer", "gallery", "tune"}
    assert commands and {command for command, _ in commands} <= known
    assert {name for _, name in commands if name} <= {*RECIPES, *NAMES, "NAME", "RUN"}
    files = [ROOT / "pyproject.toml", ROOT / "studies" / "pyproject.toml"]
    written = "\n".join(file.read_text(encoding="utf-8") for file in files)
    extras = set(re.findall(r"^(\w+) = \[", written, re.MULTILINE))
    asked = {
        extra
        for found in re.findall(r"(?:sparsernn|sparsernn-studies|'\.)\[([\w,]+)\]", text)
        for extra in found.split(",")
    }
    assert asked and asked <= extras


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_public_name_is_on_the_page_of_names():
    (listed,) = [b.text.split() for b in blocks(ROOT / "docs" / "api.md") if b.language == "{api}"]
    public = {name for name, thing in vars(sparsernn).items() if callable(thing) and not name.startswith("_")}
    public |= {f"nn.{name}" for name in vars(sparsernn.nn) if name[0].isupper()}
    assert set(listed) == public and len(listed) == len(public)


def test_reasons_on_the_page_are_those_that_trace_gives():
    """Each reason of the table in docs/what-can-go.md occurs in the code that gives reasons."""
    page = (ROOT / "docs" / "what-can-go.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    reasons = [reason for cell in rows for reason in re.findall(r"`([^`]+)`", cell)]
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src/sparsernn/structure").rglob("*.py"))
    assert len(reasons) > 10 and [reason for reason in reasons if reason not in code] == []


@functools.cache
def generate() -> dict:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_the_readme_has_the_demo_table_of_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- demo:begin -->\n(.*?)<!-- demo:end -->", text, re.DOTALL)
    assert shown == generate()["demo_section"](collect(ROOT / "results"))


def test_the_table_of_folded_nets_is_that_of_the_results():
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = shown.partition("<!-- fold:begin -->\n")[2].partition("<!-- fold:end -->")[0]
    assert shown == generate()["fold_section"](collect(ROOT / "results"))


def test_the_page_on_spoken_digits_has_the_tables_of_the_results():
    text = (ROOT / "docs" / "spoken-digits.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- demo:begin -->\n(.*?)<!-- demo:end -->", text, re.DOTALL)
    assert shown == generate()["digits_section"](collect(ROOT / "results"))


def test_the_page_on_bidaf_has_the_tables_of_the_paper_and_of_the_results():
    text = (ROOT / "docs" / "bidaf.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- demo:begin -->\n(.*?)<!-- demo:end -->", text, re.DOTALL)
    assert shown == generate()["bidaf_section"](collect(ROOT / "results"), ROOT / "results" / "benchmarks")


def test_the_page_on_intrinsic_structures_has_the_table_of_the_results():
    text = (ROOT / "docs" / "intrinsic-structures.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- demo:begin -->\n(.*?)<!-- demo:end -->", text, re.DOTALL)
    assert shown == generate()["ptb_section"](collect(ROOT / "results"))


def test_the_page_of_claims_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    pages = {"claims_page": "claims.md", "fold_page": "fold-study.md", "methods_page": "which-method.md"}
    modules = [runpy.run_path(str(ROOT / "docs" / name)) for name in ("claim_pages.py", "methods_page.py")]
    for write, name in pages.items():
        {**modules[0], **modules[1]}[write](ROOT / "results", tmp_path)
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_page_on_steps_has_the_tables_of_the_results():
    text = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8")
    module = runpy.run_path(str(ROOT / "docs" / "streams_page.py"))
    for name, section in (("demo", "packages_section"), ("delta", "delta_section")):
        (shown,) = re.findall(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
        assert shown == module[section](ROOT / "results")


def test_the_page_on_devices_has_the_table_of_the_results():
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- demo:begin -->\n(.*?)<!-- demo:end -->", text, re.DOTALL)
    assert shown == runpy.run_path(str(ROOT / "docs" / "devices_page.py"))["digits_table"](ROOT / "results")


def test_the_page_of_checks_is_that_of_the_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    runpy.run_path(str(ROOT / "docs" / "checks.py"))["checks_page"](ROOT / "results", tmp_path)
    assert (ROOT / "docs" / "checks.md").read_text(encoding="utf-8") == (tmp_path / "checks.md").read_text("utf-8")


def test_the_demo_table_is_filled_in_from_results(tmp_path):
    common = dict.fromkeys(FIELDS) | {"settings": {}, "paper": {}, "versions": {"torch": "2"}, "device": "cpu"}
    named = {"recipe": "shakespeare", "row": "dense", "seed": 0, "date": "2026-01-01"}
    result = Result(**{**common, **named, "scale": "cpu", "measured": {"test_bpc": 2.0, "units": [8]}})
    other = Result(**{**common, **named, "scale": "smoke", "measured": {"test_bpc": 9.0, "units": [8]}})
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- demo:begin -->\nold\n<!-- demo:end -->\nafter\n")
    module = generate()
    for _ in range(2):
        module["fill"](page, module["demo_section"]([result, other]))
    text = page.read_text()
    assert text.startswith("before\n<!-- demo:begin -->\n") and text.endswith("<!-- demo:end -->\nafter\n")
    assert "| dense | 2.000 | 8 |" in text and "old" not in text and "9.000" not in text
    assert "make demo" in module["demo_section"]([other])
