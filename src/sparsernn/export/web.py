"""A page that plays sound through the step: WebAssembly inside an AudioWorklet."""

from __future__ import annotations

from .lowering import Plan, Refused
from .source import named


def web(plan: Plan, name: str, files: dict[str, str]) -> dict[str, str]:
    """NAME_web/: NAME_web.c to be compiled into NAME.wasm, the processor, a page. For one sample in, one out."""
    ports = [*plan.inputs, *plan.outputs]
    if len(ports) != 2 or any(a.place.size != 1 or a.place.dtype != "float" for a in ports):
        shapes = ", ".join("x".join(map(str, a.place.shape)) for a in ports)
        raise Refused(f"the web page feeds one sample to one input and plays one output, got {shapes}; use the others.")
    folder = f"{name}_web"
    return {
        f"{folder}/{name}.c": files[f"{name}.c"],
        f"{folder}/{name}.h": files[f"{name}.h"],
        f"{folder}/{name}_web.c": named(_C, name).replace("NAME", name),
        f"{folder}/processor.js": _PROCESSOR.replace("NAME", name),
        f"{folder}/index.html": _PAGE.replace("NAME", name),
    }


_C = """\
/* zig cc -target wasm32-freestanding -mcpu=generic+simd128 -O2 -nostdlib -Wl,--no-entry -o NAME.wasm NAME_web.c */
#include "$.c"

static $state state;
static float block[128];

__attribute__((export_name("block"))) float *$block(void);
__attribute__((export_name("reset"))) void $start(void);
__attribute__((export_name("run"))) void $run(int samples);

float *$block(void) { return block; }
void $start(void) { $reset(&state); }
void $run(int samples)
{
    for (int t = 0; t < samples; ++t)
        $step(&state, block + t, block + t);
}
"""

_PROCESSOR = """\
// One net for each channel; the module comes compiled in processorOptions.
registerProcessor("NAME", class extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.module = options.processorOptions.module;
    this.nets = [];
  }
  net(channel) {
    while (this.nets.length <= channel) {
      const code = new WebAssembly.Instance(this.module, {}).exports;
      code.reset();
      this.nets.push({ code, block: new Float32Array(code.memory.buffer, code.block(), 128) });
    }
    return this.nets[channel];
  }
  process([input], [output]) {
    for (let c = 0; c < output.length; ++c) {
      const { code, block } = this.net(c);
      if (c < input.length) block.set(input[c]);
      else block.fill(0);
      code.run(output[c].length);
      output[c].set(block);
    }
    return true;
  }
});
"""

_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>NAME</title>
<h1>NAME</h1>
<input type="file" id="file" accept="audio/*">
<p id="result"></p>
<script>
// The whole file through the net, as fast as it goes; then it is played. `bits` is a sum over the bits of the samples.
async function through(buffer) {
  const offline = new OfflineAudioContext(buffer.numberOfChannels, buffer.length, buffer.sampleRate);
  await offline.audioWorklet.addModule("processor.js");
  const module = await WebAssembly.compile(await (await fetch("NAME.wasm")).arrayBuffer());
  const options = { outputChannelCount: [buffer.numberOfChannels], processorOptions: { module } };
  const net = new AudioWorkletNode(offline, "NAME", options);
  const source = new AudioBufferSourceNode(offline, { buffer });
  source.connect(net).connect(offline.destination);
  source.start();
  return offline.startRendering();
}
function bits(samples) {
  let h = 2166136261;
  for (const word of new Uint32Array(samples.buffer, samples.byteOffset, samples.length)) {
    h = Math.imul(h ^ word, 16777619);
    h ^= h >>> 15;
  }
  return h >>> 0;
}
async function show(data) {
  // At the rate of the file: resampling would change the samples.
  const rate = new DataView(data).getUint32(24, true);
  const decoder = new OfflineAudioContext(1, 1, rate >= 8000 && rate <= 96000 ? rate : 48000);
  const made = await through(await decoder.decodeAudioData(data));
  document.getElementById("result").textContent = `${made.length} samples, bits ${bits(made.getChannelData(0))}`;
  return made;
}
document.getElementById("file").onchange = async (event) => {
  const made = await show(await event.target.files[0].arrayBuffer());
  const context = new AudioContext({ sampleRate: made.sampleRate });
  const source = new AudioBufferSourceNode(context, { buffer: made });
  source.connect(context.destination);
  source.start();
};
const given = new URLSearchParams(location.search).get("file");
if (given) fetch(given).then((r) => r.arrayBuffer()).then(show);
</script>
"""
