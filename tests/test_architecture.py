"""The architecture holds: which room may import which, nothing that executes files, small files, documented names."""

from __future__ import annotations

import ast
import functools
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import sparsernn
import sparsernn_studies
from sparsernn.nn.protocol import LAYERS

SOURCE = Path(sparsernn.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
# For everyone; they import no room, apart from `_twins`, which runs models as `structure` does.
LEAVES = {"extras", "files", "_modules", "_rebinding", "_twins", "tensors", "_version"}
MAY_IMPORT = {
    "structure": set(),
    "nn": {"structure"},
    "learn": {"structure", "nn"},
    "surgery": {"structure", "nn"},
    "runtime": {"structure", "nn"},
    "export": {"structure", "nn", "runtime"},
    "reading": {"structure", "nn"},
    "analysis": {"structure", "nn"},
}
KNOW_ALL = {"checkpoints", "timing", "_milliseconds", "cli", "__main__", "__init__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
PUBLIC = [(name, thing) for name, thing in vars(sparsernn).items() if not name.startswith("_") and callable(thing)]
PUBLIC += [(f"nn.{name}", getattr(sparsernn.nn, name)) for name in vars(sparsernn.nn) if name[0].isupper()]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes_of(tree: ast.Module) -> list[ast.AST]:
    return [*ast.walk(tree)]


@pytest.fixture(scope="module", autouse=True)
def trees_are_read_once() -> Iterator[None]:
    yield
    tree_of.cache_clear()
    nodes_of.cache_clear()


def trees() -> Iterator[tuple[Path, ast.Module]]:
    return ((path, tree_of(path)) for path in FILES)


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path, tree: ast.Module, top: Path = SOURCE) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a file imports, inside functions as well; relative names made absolute."""
    package = (top.name, *path.relative_to(top).parent.parts)
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            whole = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{whole}.{alias.name}") for alias in node.names)


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    room = room_of(path)
    if room in KNOW_ALL:
        return []
    allowed = set() if room in LEAVES else MAY_IMPORT[room] | LEAVES | {room, "__version__"}
    allowed |= {"_rebinding"} if room == "_modules" else {"_modules", "structure"} if room == "_twins" else set()
    found = ((line, name.split(".")) for line, name in imported(path, tree))
    return [
        f"{path.relative_to(SOURCE)}:{line} imports {'.'.join(parts)}"
        for line, parts in found
        if parts[0] == "sparsernn" and (parts[1] if len(parts) > 1 else "*") not in allowed
    ]


def unsafe(path: Path, tree: ast.Module) -> list[str]:
    """Imports of modules that execute what they read, calls of eval and its kin, torch.load without weights_only."""
    where = path.relative_to(SOURCE)
    found = [f"{where}:{n} imports {name}" for n, name in imported(path, tree) if name.split(".")[0] in UNSAFE_MODULES]
    for node in nodes_of(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in UNSAFE_CALLS or called.split(".")[0] in UNSAFE_MODULES:
            found.append(f"{where}:{node.lineno} calls {called}")
        if called in ("torch.load", "np.load", "numpy.load"):
            safe = keywords.get("weights_only") == "True" or (called != "torch.load" and "allow_pickle" not in keywords)
            found += [] if safe else [f"{where}:{node.lineno} calls {called}, which may unpickle"]
        if keywords.get("shell") == "True" or called in ("os.system", "os.popen"):
            found.append(f"{where}:{node.lineno} starts a shell")
    return found


@pytest.mark.smoke
def test_imports_point_one_way():
    assert [line for path, tree in trees() for line in wrong_imports(path, tree)] == []


@pytest.mark.parametrize(
    "place, code",
    [
        ("structure/a.py", "from ..learn import lasso"),
        ("structure/a.py", "def f():\n    from .. import nn"),
        ("learn/a.py", "from ..surgery.compact import compact"),
        ("analysis/a.py", "import sparsernn.runtime.pack"),
        ("nn/a.py", "from sparsernn import learn"),
        ("runtime/a.py", "from .. import compact"),
        ("files.py", "from .structure import cells"),
    ],
)
def test_a_wrong_import_is_seen(place, code):
    assert len(wrong_imports(SOURCE / place, ast.parse(code))) == 1


STUDIES = Path(sparsernn_studies.__file__).parent


def files_that_import() -> nx.DiGraph:
    """All files of both distributions; an edge where one imports the other, inside functions and for types as well."""
    places = {".".join(("sparsernn", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in FILES}
    for path in STUDIES.rglob("*.py"):
        places[".".join(("sparsernn_studies", *path.relative_to(STUDIES).with_suffix("").parts))] = path
    places = {name.removesuffix(".__init__"): path for name, path in places.items()}
    graph = nx.DiGraph()
    for name, path in places.items():
        top = SOURCE if name.split(".")[0] == "sparsernn" else STUDIES
        for _, dotted in imported(path, tree_of(path), top):
            found = dotted if dotted in places else dotted.rpartition(".")[0]
            if found in places and found != name:
                graph.add_edge(name, found)
    return graph


@pytest.mark.smoke
def test_no_files_import_each_other_in_a_circle():
    circles = nx.strongly_connected_components(files_that_import())
    assert [sorted(circle) for circle in circles if len(circle) > 1] == []


WIDTHS = {"hidden", "hidden_size", "width", "units", "k", "H"}


def knows_the_gates_of_an_lstm(tree: ast.Module, widths: set[str] = WIDTHS) -> Iterator[int]:
    """Lines with the number or the names of its gates: {"LSTM": 4}, gates = 4, 4 * width, chunk(4), ("i", "f", ...)."""
    above = {id(child): node for node in nodes_of(tree) for child in ast.iter_child_nodes(node)}
    for node in nodes_of(tree):
        if isinstance(node, ast.Tuple) and [getattr(part, "value", None) for part in node.elts] == ["i", "f", "g", "o"]:
            yield node.lineno
        if not isinstance(node, ast.Constant) or node.value != 4:
            continue
        holder = above[id(node)]
        holder = above[id(holder)] if isinstance(holder, ast.Tuple) else holder
        names = {name.id for name in ast.walk(holder) if isinstance(name, ast.Name)}
        if (
            (isinstance(holder, ast.BinOp) and isinstance(holder.op, ast.Mult) and names & widths)
            or (isinstance(holder, ast.Call) and ast.unparse(holder.func).endswith(("chunk", "unflatten")))
            or (isinstance(holder, ast.Dict) and "LSTM" in ast.unparse(holder))
            or (isinstance(holder, ast.Assign) and "gates" in ast.unparse(holder.targets[0]).lower())
        ):
            yield node.lineno


def test_one_place_knows_how_many_gates_an_lstm_has():
    # In the runtime 4 * width is a number of bytes.
    widths = {path: {"BYTES"} if room_of(path) == "runtime" else WIDTHS for path in FILES}
    found = [path for path, tree in trees() if [*knows_the_gates_of_an_lstm(tree, widths[path])]]
    assert [path.relative_to(SOURCE).as_posix() for path in found] == ["structure/cells.py"]


@pytest.mark.parametrize(
    "code", ['GATES = {"LSTM": 4}', "gates = 4", "x = 4 * width", "x.chunk(4, 1)", "x.unflatten(0, (4, n))"]
)
def test_a_second_place_that_knows_it_is_seen(code):
    assert [*knows_the_gates_of_an_lstm(ast.parse(code))] == [1]


def test_no_other_room_knows_a_layer_of_ours_by_name():
    """They ask for what `nn.protocol` says; a new layer is one file."""
    rooms = {"surgery", "runtime", "export", "learn", "analysis"}
    found = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for path, tree in trees()
        if room_of(path) in rooms
        for line, name in imported(path, tree)
        if name.startswith("sparsernn.nn.") and name.rpartition(".")[2] in LAYERS
    ]
    assert found == []


def private_imports(path: Path, tree: ast.Module, top: Path = SOURCE) -> list[str]:
    """Imports of names or files with a leading underscore from another room, or from the other distribution."""
    here = path.relative_to(top).parts[0]
    found = []
    for line, dotted in imported(path, tree, top):
        package, *parts = dotted.split(".")
        private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
        if package != "sparsernn" or not private or (top == SOURCE and parts[0] in LEAVES | {here, "_milliseconds"}):
            continue
        found.append(f"{path.name}:{line} imports {dotted}")
    return found


def test_no_private_name_crosses_rooms_or_distributions():
    wrong = [line for path, tree in trees() for line in private_imports(path, tree)]
    for path in STUDIES.rglob("*.py"):
        wrong += private_imports(path, tree_of(path), STUDIES)
    assert wrong == []


def test_a_private_import_is_seen():
    of_a_room = ast.parse("from ..nn._x import y\nfrom ..nn.x import _y\nfrom .._modules import unwrap")
    assert len(private_imports(SOURCE / "learn" / "a.py", of_a_room)) == 2
    of_the_other = ast.parse("from sparsernn._modules import unwrap\nfrom sparsernn import trace")
    assert len(private_imports(STUDIES / "a.py", of_the_other, STUDIES)) == 1


def test_nothing_in_the_package_executes_what_it_reads():
    assert [line for path, tree in trees() for line in unsafe(path, tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_what_could_execute_a_file_is_seen(code):
    assert len(unsafe(SOURCE / "a.py", ast.parse(code))) == 1


def test_files_are_small():
    root = Path(__file__).parents[1]
    folders = [root / name for name in ("tests", "studies/tests", "benchmarks", "docs", "examples", "tools")]
    files = [path for folder in (SOURCE, STUDIES, *folders) for path in folder.rglob("*.py")]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_every_file_says_what_it_is_for():
    assert [path.name for path, tree in trees() if path.stat().st_size and not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("name, thing", PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_names_have_docstrings(name, thing):
    written = inspect.getdoc(thing)
    # A dataclass without a docstring is given its signature as one.
    assert written and not written.startswith(f"{thing.__name__}(")


def test_no_room_has_the_name_of_a_public_function():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert rooms & {name for name, _ in PUBLIC} == set()


def test_what_is_imported_when():
    """`import sparsernn` loads no extra, a command and a benchmark nothing of the studies, packing for kernels that lie
    in the cache no numba, which takes half a second, and making a program not torch's compiler, which takes two."""
    extras = "accelerate tyro optuna datasets matplotlib sklearn onnx onnxscript onnxruntime ray sparsernn_studies"
    code = f"""
import sys, sparsernn
print(sorted(set({extras.split()!r}) & set(sys.modules)))
import sparsernn.cli, sparsernn.timing
from sparsernn.runtime import costs, matrices
print([name in sys.modules for name in ("sparsernn_studies", "numba")])
import torch
from sparsernn.runtime.program.make import make_program
make_program(torch.nn.Linear(3, 2).eval(), torch.randn(1, 9, 3))
print([name in sys.modules for name in ("torch._dynamo", "torch._inductor")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[False, False]", "[False, False]"]
