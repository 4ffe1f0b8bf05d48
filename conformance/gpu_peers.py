#!/usr/bin/env python3
"""PyTorch on the problems that gpu_bench timed, and how long it takes in comparison.

    gpu_peers.py GPU_BENCH.json OUT.json OUT.md

SDPA with the flash and cuDNN backends, torch.topk and masked_select, and a matrix product in bf16 as a ceiling. Needs `torch`
with a GPU; exit code 2 without. A backend that refuses a problem is listed with its reason.
"""
import json
import re
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

ROUNDS = 9
BACKENDS = {"SDPA flash": SDPBackend.FLASH_ATTENTION, "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION}
ATTENTION = re.compile(r"b(\d+) h(\d+)/(\d+) n(\d+) s(\d+) d(\d+)(, causal)?")


def milliseconds(work):
    """The median of several rounds, each long enough to be timed."""

    def once(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats

    work()
    repeats = int(min(200, max(1, 10 / once(1))))
    return statistics.median(once(repeats) for _ in range(ROUNDS))


def attention(problem, name, backend):
    """Forward, backward or decoding of a problem as gpu_bench describes it."""
    batch, heads, kv_heads, n, s, d = map(int, ATTENTION.fullmatch(problem).groups()[:6])
    training = not name.startswith("decode")

    def tensor(h, length):
        x = torch.rand(batch, h, length, d, device="cuda", dtype=torch.bfloat16) * 2 - 1
        return x.requires_grad_(training)

    q, k, v = tensor(heads, n), tensor(kv_heads, s), tensor(kv_heads, s)
    options = {"is_causal": problem.endswith("causal"), "enable_gqa": heads != kv_heads}
    with sdpa_kernel(backend):
        if not name.startswith("backward"):
            with torch.no_grad():
                return milliseconds(lambda: scaled_dot_product_attention(q, k, v, **options))
        o = scaled_dot_product_attention(q, k, v, **options)
        d_o = torch.rand_like(o)
        return milliseconds(lambda: torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True))


def peers(row):
    """Names of peers and what times them."""
    name, problem = row["name"], row["problem"]
    if row["family"] == "attention":
        for peer, backend in BACKENDS.items():
            yield peer, lambda backend=backend: attention(problem, name, backend)
    elif name in ("compaction", "exact top-k"):
        length, density = int(problem.split()[0]), float(problem.split()[-1])
        x = torch.rand(length, device="cuda") * 2 - 1
        if name == "compaction":
            yield "masked_select", lambda: milliseconds(lambda: x.masked_select(x.abs() >= 1 - density))
        else:
            yield "topk", lambda: milliseconds(lambda: x.abs().topk(round(length * density), sorted=False))


def ceiling():
    """TFLOP/s of a matrix product."""
    n = 8192
    a, b = (torch.rand(n, n, device="cuda", dtype=torch.bfloat16) - 0.5 for _ in range(2))
    return 2 * n**3 / milliseconds(lambda: a @ b) / 1e9


def compare(rows):
    """One row a problem and peer."""
    for row in rows:
        for peer, work in peers(row):
            found = {key: row[key] for key in ("name", "problem", "milliseconds")} | {"peer": peer}
            try:
                found["peer_milliseconds"] = work()
                found["ratio"] = row["milliseconds"] / found["peer_milliseconds"]
            except RuntimeError as error:
                found["refused"] = str(error).splitlines()[0]
            yield found
        torch.cuda.empty_cache()


def markdown(report):
    """The same as a table."""
    lines = [f"PyTorch {report['torch']}, {report['device']}; matmul in bf16: {report['matmul_tflops']:.0f} TFLOP/s.", ""]
    lines += ["| | problem | ms | peer | ms of the peer | ours / peer |", "|---|---|---:|---|---:|---:|"]
    for row in report["rows"]:
        theirs = f"{row['peer_milliseconds']:.4f} | {row['ratio']:.2f}" if "ratio" in row else f"{row['refused']} | "
        lines.append(f"| {row['name']} | {row['problem']} | {row['milliseconds']:.4f} | {row['peer']} | {theirs} |")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: gpu_peers.py GPU_BENCH.json OUT.json OUT.md")
    if not torch.cuda.is_available():
        print("gpu_peers: PyTorch finds no GPU", file=sys.stderr)
        sys.exit(2)
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    report = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "matmul_tflops": ceiling()}
    report["rows"] = list(compare(rows))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
    with open(sys.argv[3], "w", encoding="utf-8") as file:
        file.write(markdown(report))


if __name__ == "__main__":
    main()
