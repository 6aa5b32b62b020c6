"""The C step in other languages and places, each built and run where its tool is: the bits of the oracle."""

from __future__ import annotations

import functools
import importlib
import queue
import re
import shutil
import struct
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from torch import nn

from export_programs import chain
from sparsernn.export.export_c import export_program
from sparsernn.export.machines import missing, zig
from sparsernn.export.oracle import Oracle
from sparsernn.export.plan import lower

CHROMIUM = next((c for c in ("chromium", "chromium-browser", "google-chrome") if shutil.which(c)), None)


def needs(*tools: str) -> None:
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")


def tagger():
    """Tokens in, five scores out; and its oracle's outputs on some tokens."""
    torch.manual_seed(0)
    program = chain([nn.Embedding(9, 6), nn.GRU(6, 20), nn.Linear(20, 5)])
    tokens = [3, 8, 0, 5, 5, 1]
    outputs = Oracle(lower(program)).run([[np.array([t])] for t in tokens])
    return program, tokens, np.stack([y[0] for y in outputs]).reshape(len(tokens), 5)


def printed(expected: np.ndarray) -> list[str]:
    return [f"{word:08x}" for word in expected.ravel().view(np.uint32)]


def test_the_class_of_cpp_gives_the_bits_of_the_oracle(tmp_path):
    needs("g++", "cc")
    program, tokens, expected = tagger()
    export_program(program, tmp_path, "net", wrappers=["c++"])
    (tmp_path / "main.cpp").write_text(f"""\
#include "net.hpp"
#include <cstdio>
#include <cstring>
int main() {{
    net_net one, other;
    const int32_t tokens[] = {{{", ".join(map(str, tokens))}}};
    float y[5], z[5];
    const int32_t none[1] = {{9}};
    if (other.step(none, z)) return 1;
    for (int32_t t : tokens) {{
        const int32_t given[1] = {{t}};
        other = one;
        if (!one.step(given, y) || !other.step(given, z) || std::memcmp(y, z, sizeof y)) return 2;
        for (float v : y) {{ uint32_t u; std::memcpy(&u, &v, 4); std::printf("%08x\\n", u); }}
    }}
}}
""")
    subprocess.run(["cc", "-O2", "-c", "net.c"], cwd=tmp_path, check=True)
    strict = ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["g++", *strict, "main.cpp", "net.o", "-o", "main"], cwd=tmp_path, check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == printed(expected)


def test_the_module_of_python_gives_the_bits_of_the_oracle(tmp_path, monkeypatch):
    """Compiled and imported as its first line says, beside the library."""
    needs("cc")
    program, tokens, expected = tagger()
    export_program(program, tmp_path, "taggernet", wrappers=["python"])
    command = re.search(r"(cc .*)\"\"\"", (tmp_path / "taggernet.py").read_text())
    assert command is not None
    subprocess.run(command[1].split(), cwd=tmp_path, check=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module: Any = importlib.import_module("taggernet")
    monkeypatch.delitem(sys.modules, "taggernet")
    model = module.Model()
    assert np.array_equal([model.step([t])[0].ravel() for t in tokens], expected)
    with pytest.raises(ValueError, match="out of range"):
        model.step([9])
    with pytest.raises(ValueError, match="expected the shape"):
        model.step([1, 2])


def test_the_struct_of_rust_gives_the_bits_of_the_oracle(tmp_path):
    needs("rustc", "cc")
    program, tokens, expected = tagger()
    export_program(program, tmp_path, "net", wrappers=["rust"])
    (tmp_path / "main.rs").write_text(f"""\
mod net;
fn main() {{
    let mut one = net::Model::new();
    let mut y = [0f32; 5];
    assert!(!one.step(&[9], &mut y));
    one.reset();
    for t in [{", ".join(map(str, tokens))}] {{
        let mut other = one.clone();
        let mut z = [0f32; 5];
        assert!(one.step(&[t], &mut y) && other.step(&[t], &mut z) && y == z);
        for v in y {{ println!("{{:08x}}", v.to_bits()); }}
    }}
}}
""")
    subprocess.run(["cc", "-O2", "-c", "net.c"], cwd=tmp_path, check=True)
    built = ["rustc", "--edition=2021", "-D", "warnings", "main.rs", "-C", "link-arg=net.o"]
    subprocess.run(built, cwd=tmp_path, check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == printed(expected)


def test_the_example_of_the_arduino_library_finds_the_same_bits(tmp_path):
    """Compiled here, with a stand-in for the board's own header."""
    needs("g++", "cc")
    export_program(tagger()[0], tmp_path, "net", wrappers=["arduino"])
    library = tmp_path / "net_arduino"
    properties = dict(line.split("=", 1) for line in (library / "library.properties").read_text().splitlines())
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= set(properties) and {p.name for p in (library / "src").iterdir()} == {
        "net.c",
        "net.h",
        "net_test.c",
    }
    (tmp_path / "Arduino.h").write_text("""\
#include <cstdio>
struct Port {
    void begin(long) {}
    void println(const char *s) { std::puts(s); }
    void println(int n) { std::printf("%d\\n", n); }
};
static Port Serial;
""")
    (tmp_path / "main.cpp").write_text("int main() { setup(); loop(); }\n")
    sketch = library / "examples" / "net_check" / "net_check.ino"
    objects = []
    for source in (library / "src").glob("*.c"):
        objects.append(str(tmp_path / f"{source.stem}.o"))
        subprocess.run(["cc", "-O2", "-c", str(source), "-o", objects[-1]], check=True)
    both = tmp_path / "both.cpp"
    both.write_text(f'#include "Arduino.h"\n#include "{sketch}"\n#include "main.cpp"\n')
    subprocess.run(["g++", f"-I{library / 'src'}", str(both), *objects, "-o", str(tmp_path / "main")], check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "the same bits"
    avr = subprocess.run(["g++", "-D__AVR__", f"-I{library / 'src'}", "-c", str(both), "-o", str(tmp_path / "avr.o")],
                         capture_output=True, text=True)  # fmt: skip
    assert avr.returncode != 0 and "flat memory" in avr.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder of a page for an effect on sound, a file of sound in it, and what the oracle makes of that."""
    if missing("ziglang"):
        pytest.skip("not installed: ziglang")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("web")
    program = chain([nn.GRU(1, 12), nn.Linear(12, 1)])
    export_program(program, folder, "effect", wrappers=["web"])
    web = folder / "effect_web"
    zig("cc", "-target", "wasm32-freestanding", "-mcpu=generic+simd128", "-O2", "-nostdlib", "-Wl,--no-entry",
        "-o", str(web / "effect.wasm"), str(web / "effect_web.c"))  # fmt: skip
    given = np.random.default_rng(0).uniform(-0.7, 0.7, 1000).astype(np.float32)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 48_000, 4 * 48_000, 4, 32)  # floats: nothing is rounded
    data = form + struct.pack("<4sI", b"data", given.nbytes) + given.tobytes()
    (web / "sound.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data)
    outputs = Oracle(lower(program)).run([[x.reshape(1, 1)] for x in given])
    return web, given, np.array([y[0].item() for y in outputs], np.float32)


def hashed(samples: np.ndarray) -> int:
    """As the page works it out."""
    h = 2166136261
    for word in samples.view(np.uint32).tolist():
        h = (h ^ word) * 16777619 & 0xFFFFFFFF
        h ^= h >> 15
    return h


def test_the_processor_of_the_page_gives_the_bits_of_the_oracle_in_node(page):
    """The processor itself, in blocks of 128, without a browser around it."""
    needs("node")
    web, given, expected = page
    driver = """
const fs = require("fs");
let made;
globalThis.AudioWorkletProcessor = class {};
globalThis.registerProcessor = (name, kind) => { made = kind; };
eval(fs.readFileSync("processor.js", "utf8"));
const module = new WebAssembly.Module(fs.readFileSync("effect.wasm"));
const node = new made({ processorOptions: { module } });
const given = new Float32Array(JSON.parse(fs.readFileSync(0, "utf8")));
const bits = [];
for (let t = 0; t < given.length; t += 128) {
  const x = new Float32Array(128), y = [new Float32Array(128), new Float32Array(128)];
  x.set(given.subarray(t, t + 128));
  node.process([[x]], [y]);
  bits.push(...new Uint32Array(y[0].buffer));
}
console.log(bits.slice(0, given.length).join(" "));
"""
    text = "[" + ",".join(repr(float(x)) for x in given) + "]"
    ran = subprocess.run(["node", "-e", driver], cwd=web, input=text, capture_output=True, text=True, check=True)
    assert np.array_equal(np.array(ran.stdout.split(), np.uint32), expected.view(np.uint32))


@pytest.mark.skipif(CHROMIUM is None, reason="not installed: chromium")
def test_the_page_plays_a_file_through_the_net_in_a_browser(page, tmp_path):
    """The page as it is, with a few lines behind it that tell this server what it shows."""
    web, _, expected = page
    told: queue.Queue[str] = queue.Queue()
    (web / "told.html").write_text(
        (web / "index.html").read_text()
        + """
<script>
const tell = (text) => fetch("/told?" + encodeURIComponent(text));
addEventListener("unhandledrejection", (event) => tell("error " + event.reason));
const result = document.getElementById("result");
new MutationObserver(() => tell(result.textContent)).observe(result, { childList: true });
</script>
"""
    )

    class Server(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/told?"):
                told.put(unquote(self.path.partition("?")[2]))
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(web)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/told.html?file=sound.wav"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    browser = subprocess.Popen([str(CHROMIUM), *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        shown = told.get(timeout=120)
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
    assert shown == f"1000 samples, bits {hashed(expected)}"


@pytest.mark.parametrize(
    "wrappers, weights, message",
    [
        (["c++", "fortran"], "source", "expected several of c\\+\\+, python"),
        ("rust", "source", "expected several of"),
        (["c++"], "file", "weights='source'"),
        (["web"], "source", "feeds one sample to one input"),
    ],
)
def test_wrappers_that_there_are_not_are_refused(tmp_path, wrappers, weights, message):
    with pytest.raises(ValueError, match=f"export_c: .*{message}"):
        export_program(tagger()[0], tmp_path / "out", wrappers=wrappers, weights=weights)
    assert not (tmp_path / "out").exists()


def test_folders_of_wrappers_are_written_or_nothing_is(tmp_path, monkeypatch):
    program = tagger()[0]
    (tmp_path / "net_arduino").write_text("mine")
    with pytest.raises(OSError):
        export_program(program, tmp_path, "net", wrappers=["arduino"])
    assert [p.name for p in tmp_path.iterdir()] == ["net_arduino"]
    (tmp_path / "deep" / "net_arduino").mkdir(parents=True)
    (tmp_path / "deep" / "net_arduino" / "examples").write_text("mine")
    with pytest.raises(NotADirectoryError, match="examples is no folder"):
        export_program(program, tmp_path / "deep", "net", wrappers=["arduino"])
    assert sorted(p.name for p in (tmp_path / "deep").rglob("*")) == ["examples", "net_arduino"]
    assert Path(tmp_path / "net_arduino").read_text() == "mine"
