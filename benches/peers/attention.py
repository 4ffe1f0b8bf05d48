#!/usr/bin/env python3
"""Tilewright's attention on the CPU beside torch, OpenVINO, ONNX Runtime and ggml, on the same tensors, in one run.

    python benches/peers/attention.py [--python torch=PYTHON ...] [--only s2048d64 ...] [--pass fwd bwd] [--dtype f32 bf16]
                                      [--threads 1] [--rounds 3] [--budget 400] [--memory] [--json FILE]

Needs numpy and the peers' packages, in this interpreter or in one named by `--python PEER=PATH` (a peer that is not there is
left out, and said so), and builds the Rust side with cargo. GGML_LIBRARIES names the folder of ggml's libggml-base.so and
libggml-cpu.so; its queries and results are f32 whatever its keys and values are.

In every round each peer runs a case in turn, and so does a loop of multiply-adds that never leave the registers: a share is of
that loop's rate in the same round. Times are CPU time with one thread, which other programs change little, and wall time with
more; each round takes the median of its repetitions, and the table the median of the rounds. Useful operations are counted:
4·H·N·M·d forward, 2.5 times as much backward, half if causal.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# name: (batch, query heads, key/value heads, queries, keys, dim)
CASES = {
    "s512d64": (1, 16, 16, 512, 512, 64),
    "s2048d64": (1, 16, 16, 2048, 2048, 64),
    "s2048d128": (1, 16, 16, 2048, 2048, 128),
    "s8192d64": (1, 8, 8, 8192, 8192, 64),
    "s16384d64": (1, 4, 4, 16384, 16384, 64),
    "one8192d64": (1, 1, 1, 8192, 8192, 64),
    "gqa2048d128": (1, 16, 4, 2048, 2048, 128),
    "dec4096": (1, 32, 8, 1, 4096, 128),
    "dec32768": (1, 32, 8, 1, 32768, 128),
}
# peer: (the script's own worker, or None for the Rust side; mode; dtypes; passes)
PEERS = {
    "fma": (None, "fma", ("f32", "bf16", "f16"), ("fwd", "bwd")),
    "read": (None, "read", ("f32",), ("fwd",)),
    "tilewright": (None, "flash", ("f32", "bf16", "f16", "f64"), ("fwd", "bwd")),
    "standard": (None, "standard", ("f32",), ("fwd", "bwd")),
    "torch": ("torch", "flash", ("f32", "bf16"), ("fwd", "bwd")),
    "openvino": ("openvino", "sdpa", ("f32", "bf16"), ("fwd",)),
    "onnxruntime": ("onnxruntime", "mha", ("f32",), ("fwd",)),
    "ggml": ("ggml", "flash_attn_ext", ("f32", "bf16", "f16"), ("fwd",)),
}
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "f64": 8}


def operations(case, backward, causal):
    b, h, _, n, m, d = CASES[case]
    pairs = n * (n + 1) // 2 if causal else n * m
    return 4 * b * h * pairs * d * (2.5 if backward else 1)


# ---- workers: one request a line, one answer a line, as the Rust side does


def tensor(seed, shape):
    import numpy as np

    count = 1
    for side in shape:
        count *= side
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return ((2 * unit - 1) * 3**0.5).astype(np.float32).reshape(shape)


def inputs(case):
    b, hq, hkv, n, m, d = (case[key] for key in ("b", "hq", "hkv", "n", "m", "d"))
    shapes = [(b, hq, n, d), (b, hkv, m, d), (b, hkv, m, d), (b, hq, n, d)]
    return [tensor(seed + 1, shape) for seed, shape in enumerate(shapes)]


def build_torch(case):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(case["threads"])
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]
    q, k, v, g = (torch.from_numpy(x).to(dtype) for x in inputs(case))
    backward = case["pass"] == "bwd"
    options = {"is_causal": bool(case["causal"]), "enable_gqa": case["hq"] != case["hkv"]}

    def forward():
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    if not backward:
        kept = []

        def run():
            with torch.no_grad():
                kept[:] = [forward()]

        return run, lambda: [kept[0].float().numpy()]
    leaves = [q, k, v]
    for x in leaves:
        x.requires_grad_(True)
    out, kept = forward(), []

    def run():
        kept[:] = torch.autograd.grad(out, leaves, g, retain_graph=True)

    return run, lambda: [x.float().numpy() for x in kept]


def build_openvino(case):
    import numpy as np
    import openvino as ov
    from openvino import opset13

    if case["hq"] != case["hkv"]:
        raise ValueError("grouped heads are not in its operator")
    q, k, v, _ = inputs(case)
    parameters = [opset13.parameter(list(x.shape), np.float32) for x in (q, k, v)]
    node = opset13.scaled_dot_product_attention(*parameters, causal=bool(case["causal"]))
    core = ov.Core()
    precision = {"f32": "f32", "bf16": "bf16"}[case["dtype"]]
    settings = {"INFERENCE_NUM_THREADS": case["threads"], "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    request = core.compile_model(ov.Model([node], parameters), "CPU", settings).create_infer_request()
    for at, x in enumerate((q, k, v)):
        request.set_input_tensor(at, ov.Tensor(x))
    return request.infer, lambda: [request.get_output_tensor(0).data.astype(np.float32)]


def build_onnxruntime(case):
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper

    if case["hq"] != case["hkv"]:
        raise ValueError("grouped heads are another operator's")
    b, h, n, m, d = (case[key] for key in ("b", "hq", "n", "m", "d"))
    rows = [x.transpose(0, 2, 1, 3).reshape(b, -1, h * d).copy() for x in inputs(case)[:3]]
    value = lambda name, length: helper.make_tensor_value_info(name, TensorProto.FLOAT, [b, length, h * d])
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft", num_heads=h, unidirectional=int(case["causal"])
    )
    graph = helper.make_graph([node], "attention", [value("q", n), value("k", m), value("v", m)], [value("o", n)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = case["threads"]
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    feed, kept = dict(zip("qkv", rows)), []

    def run():
        kept[:] = session.run(None, feed)

    return run, lambda: [kept[0].reshape(b, n, h, d).transpose(0, 2, 1, 3).astype(np.float32)]


def load_ggml():
    import ctypes as c

    folder = os.environ.get("GGML_LIBRARIES", "")
    base, cpu = (c.CDLL(os.path.join(folder, f"libggml-{name}.so"), mode=c.RTLD_GLOBAL) for name in ("base", "cpu"))

    class Parameters(c.Structure):
        _fields_ = [("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool)]

    def function(library, name, result, *arguments):
        found = getattr(library, name)
        found.restype, found.argtypes = result, arguments
        return found

    pointer, size = c.c_void_p, c.c_size_t
    return Parameters, {
        "backend": function(cpu, "ggml_backend_cpu_init", pointer),
        "threads": function(cpu, "ggml_backend_cpu_set_n_threads", None, pointer, c.c_int),
        "init": function(base, "ggml_init", pointer, Parameters),
        "tensor": function(base, "ggml_new_tensor_4d", pointer, pointer, c.c_int, *[c.c_int64] * 4),
        "attention": function(base, "ggml_flash_attn_ext", pointer, pointer, *[pointer] * 4, *[c.c_float] * 3),
        "graph": function(base, "ggml_new_graph", pointer, pointer),
        "expand": function(base, "ggml_build_forward_expand", None, pointer, pointer),
        "allocate": function(base, "ggml_backend_alloc_ctx_tensors", pointer, pointer, pointer),
        "set": function(base, "ggml_backend_tensor_set", None, pointer, pointer, size, size),
        "get": function(base, "ggml_backend_tensor_get", None, pointer, pointer, size, size),
        "narrow": function(base, "ggml_fp32_to_bf16_row", None, pointer, pointer, c.c_int64),
        "compute": function(base, "ggml_backend_graph_compute", c.c_int, pointer, pointer),
        "release": function(base, "ggml_backend_buffer_free", None, pointer),
        "free": function(base, "ggml_free", None, pointer),
    }


def build_ggml(case):
    import numpy as np

    Parameters, ggml = load_ggml()
    b, hq, hkv, n, m, d = (case[key] for key in ("b", "hq", "hkv", "n", "m", "d"))
    kind = {"f32": 0, "f16": 1, "bf16": 30}[case["dtype"]]
    backend, context = ggml["backend"](), ggml["init"](Parameters(16 << 20, None, True))
    ggml["threads"](backend, case["threads"])
    q = ggml["tensor"](context, 0, d, n, hq, b)
    k, v = (ggml["tensor"](context, kind, d, m, hkv, b) for _ in range(2))
    mask = ggml["tensor"](context, 1, m, n, 1, 1) if case["causal"] else None
    out = ggml["attention"](context, q, k, v, mask, d**-0.5, 0.0, 0.0)
    graph = ggml["graph"](context)
    ggml["expand"](graph, out)
    buffer = ggml["allocate"](context, backend)

    def stored(x):
        if case["dtype"] == "bf16":
            narrow = np.empty(x.shape, np.uint16)
            ggml["narrow"](x.ctypes.data, narrow.ctypes.data, x.size)
            return narrow
        return x.astype(np.float16 if case["dtype"] == "f16" else np.float32)

    values = inputs(case)
    tensors = [(q, values[0]), (k, stored(values[1])), (v, stored(values[2]))]
    if mask:
        tensors.append((mask, np.triu(np.full((n, m), -np.inf), 1).astype(np.float16)))
    for to, x in tensors:
        ggml["set"](to, np.ascontiguousarray(x).ctypes.data, 0, x.nbytes)

    def run():
        if ggml["compute"](backend, graph):
            raise RuntimeError("ggml failed")

    def result():
        x = np.empty((b, n, hq, d), np.float32)
        ggml["get"](out, x.ctypes.data, 0, x.nbytes)
        ggml["release"](buffer)
        ggml["free"](context)
        return [x.transpose(0, 2, 1, 3)]

    return run, result


BUILD = {"torch": build_torch, "openvino": build_openvino, "onnxruntime": build_onnxruntime, "ggml": build_ggml}


def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024


def measure(case):
    run, result = BUILD[case["peer"]](case)
    if case["mem"]:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
        before = resident("VmRSS")
        run()
        return {"rss_mb": resident("VmHWM") - before}
    wall, cpu, repetitions = [], [], 1
    while len(wall) <= repetitions:
        began, cpu_began = time.perf_counter(), time.process_time()
        run()
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - cpu_began) * 1e3)
        if len(wall) == 1:
            repetitions = max(case["min_reps"], min(200, int(case["budget_ms"] / max(wall[0], 1e-3))))
    import numpy as np

    results = result()
    sums = [float(np.sum(x.astype(np.float64) ** power)) for power in (1, 2) for x in results]
    return {"ms": wall[1:], "cpu_ms": cpu[1:], "chk": sums}


def worker(peer):
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    load_ggml() if peer == "ggml" else __import__(peer)
    out.write('{"ready": true}\n')
    for line in sys.stdin:
        words = dict(word.split("=", 1) for word in line.split())
        case = {key: int(text) if text.isdigit() else text for key, text in words.items()}
        try:
            reply = measure({"peer": peer, **case})
        except Exception as error:  # a peer may not have a case; that is said, and the others go on
            reply = {"err": f"{type(error).__name__}: {str(error)[:200]}"}
        out.write(json.dumps(reply) + "\n")


# ---- the run


class Worker:
    def __init__(self, command, threads):
        environment = dict(os.environ)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
            environment[variable] = str(threads)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        if "ready" not in self.answer():
            raise RuntimeError("it does not start")

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"err": "it died"}

    def ask(self, request):
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"err": "it died"}
        return self.answer()


def start(arguments):
    build = ["cargo", "build", "--release", "--example", "attention_peer", "-p", "tilewright-benches", "--message-format=json"]
    ours = arguments.binary
    if not ours:
        messages = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        built = [json.loads(line) for line in messages.splitlines()]
        ours = next(m["executable"] for m in built if m.get("executable") and m["target"]["name"] == "attention_peer")
    pythons = dict(entry.split("=", 1) for entry in arguments.python)
    workers, rust = {}, Worker([ours], arguments.threads)
    for name, (script, *_) in PEERS.items():
        if arguments.peers and name not in arguments.peers + ["fma"]:
            continue
        try:
            python = pythons.get(name, sys.executable)
            command = [python, os.path.abspath(__file__), "--worker", script]
            workers[name] = Worker(command, arguments.threads) if script else rust
        except (OSError, RuntimeError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return workers


def rounds(arguments, workers, case, backward, dtype, causal):
    """Milliseconds of each peer, round by round; or its peak memory."""
    words = dict(zip(("b", "hq", "hkv", "n", "m", "d"), CASES[case]))
    seen = {name: [] for name in workers}
    for _ in range(1 if arguments.memory else arguments.rounds):
        for name, process in workers.items():
            _, mode, dtypes, passes = PEERS[name]
            skip = name == "read" and words["n"] > 1 or name == "standard" and words["n"] * words["m"] > 2**27
            if dtype not in dtypes or ("bwd" if backward else "fwd") not in passes or skip:
                continue
            request = {
                **words, "mode": mode, "pass": "bwd" if backward else "fwd", "dtype": dtype, "causal": int(causal),
                "threads": arguments.threads, "min_reps": 3, "budget_ms": arguments.budget, "mem": int(arguments.memory),
            }
            reply = process.ask(" ".join(f"{key}={value}" for key, value in request.items()))
            if "err" in reply:
                print(f"{case} {name}: {reply['err']}", file=sys.stderr)
            elif arguments.memory:
                seen[name].append(reply["rss_mb"])
            else:
                median = statistics.median(reply["cpu_ms" if arguments.threads == 1 else "ms"])
                seen[name].append(reply["flop"] / median if name == "fma" else median)
    return {name: values for name, values in seen.items() if values}


def show(arguments, case, backward, dtype, causal, seen):
    label = f"{case} {dtype} {'backward' if backward else 'forward'}{' causal' if causal else ''}"
    if arguments.memory:
        cells = [f"{name} {values[0]:.1f} MB" for name, values in seen.items() if name not in ("fma", "read")]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
        return
    # None in f64, and then there are no shares.
    peaks, cells = seen.get("fma", []), []
    decoding = CASES[case][3] == 1
    for name, times in seen.items():
        if name == "fma":
            continue
        if decoding:
            b, _, hkv, _, m, d = CASES[case]
            rate = statistics.median(2 * b * hkv * m * d * BYTES[dtype] / t / 1e6 for t in times)
            cells.append(f"{name} {rate:.1f} GB/s")
        else:
            useful = operations(case, backward, causal)
            rate = statistics.median(useful / t / 1e6 for t in times)
            shares = [useful / t / peak for t, peak in zip(times, peaks)]
            cells.append(f"{name} {rate:.1f}" + (f" ({100 * statistics.median(shares):.0f} %)" if shares else ""))
    if peaks:
        cells.insert(0, f"peak {statistics.median(peaks) / 1e6:.1f}")
    print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker")
    parser.add_argument("--python", nargs="*", default=[], metavar="PEER=PATH")
    parser.add_argument("--binary", help="the Rust side, if it is built already")
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--peers", nargs="*", choices=PEERS)
    parser.add_argument("--pass", dest="passes", nargs="*", choices=("fwd", "bwd"), default=["fwd", "bwd"])
    parser.add_argument("--dtype", nargs="*", choices=tuple(BYTES), default=["f32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=400, help="milliseconds a peer, case and round")
    parser.add_argument("--memory", action="store_true", help="peak memory beyond inputs instead of times")
    parser.add_argument("--json", help="where to keep every figure")
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker)
    workers, kept = start(arguments), []
    for case in arguments.only:
        decoding = CASES[case][3] == 1
        for dtype in arguments.dtype:
            for backward in (name == "bwd" for name in arguments.passes if not (decoding and name == "bwd")):
                for causal in (False,) if decoding else (False, True):
                    seen = rounds(arguments, workers, case, backward, dtype, causal)
                    show(arguments, case, backward, dtype, causal, seen)
                    kept.append({"case": case, "dtype": dtype, "backward": backward, "causal": causal, "seen": seen})
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(kept, file)


if __name__ == "__main__":
    main()
