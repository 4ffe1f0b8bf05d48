"""Golden vectors of gradient compression, from an implementation of its own: numpy, written from the specification's
text (core/compression/src/spec.rs and the doc comments of hash, key, select and memory), not from its code.

    python make_compression.py OUT.safetensors

Each case is a few steps of one rank. Its tensors, under the case's name: `gradient` [steps, n], `indices` and `values`
(the messages, one after the other), `starts` [steps + 1] (where each begins), and the accumulators at the end, `velocity`
and `momentum`. The specification is a JSON object in the file's metadata under the same name, with a line `why`.
"""
import json
import sys

import numpy as np
from safetensors.numpy import save_file

F = np.float32
M32 = (1 << 32) - 1


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & M32, (a >> 32) ^ c[3] ^ k[1], a & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c


def step_seeds(seed, step):
    return philox([step & M32, step >> 32, 0, 0], [seed & M32, seed >> 32])


def mix(i, seed):
    h = (i + seed * 0x9E3779B9) & M32
    h ^= h >> 16
    h = h * 0x7FEB352D & M32
    h ^= h >> 15
    h = h * 0x846CA68B & M32
    return h ^ (h >> 16)


def magnitudes(values):
    m = values.view(np.uint32).astype(np.int64) & 0x7FFFFFFF
    return np.where(m > 0x7F800000, 0x7FC00000, m)  # all NaNs are one


def magnitude(x):
    return int(magnitudes(np.array([x], F))[0])


def as_float(bits):
    return np.uint32(bits).view(F)


def precedence(values):
    """Indices of the non-zero entries, those that go first first: greater magnitude, then least index."""
    m = magnitudes(values)
    order = np.lexsort((np.arange(len(values)), -m))
    return [int(i) for i in order if m[i] > 0]


def permutation(n, keys, i):
    bits = max(1, (n - 1).bit_length())
    mask, shift, x = (1 << bits) - 1, (bits + 1) // 2, i
    while True:
        for r in range(8):
            x = (x * (mix(keys[0], 2 * r) | 1) + mix(keys[1], 2 * r + 1)) & mask
            x ^= x >> shift
        if x < n:
            return x


def sample_places(n, k, ratio, seed):
    wanted = max(int(np.ceil(ratio * n)), -(-2 * n // k))
    if wanted >= n:
        return range(n)
    stride = -(-(-(-n // wanted)) // 32) * 32 + 1
    while n // stride < wanted:
        stride -= 8
    start = seed * stride >> 32
    return [start + j * stride for j in range(n // stride)]


def sampled(values, k, s, seed):
    n = len(values)
    if k == 0:
        return []
    places = sample_places(n, k, s["ratio"], seed)
    ms = sorted((magnitude(values[i]) for i in places), reverse=True)
    rank = min(max(-(-len(ms) * k // n), 1), len(ms))
    t = max(ms[rank - 1], 1)
    mags = magnitudes(values)
    passing = int((mags >= t).sum())
    refine = s.get("refine")
    if refine:
        lower, upper = float(F(refine["lower"])), float(F(refine["upper"]))
        for _ in range(refine["iterations"]):
            if passing >= lower * k or t == 1:
                break
            lower_t = 0x7F7FFFFF if t > 0x7F7FFFFF else max(magnitude(as_float(t) * F(refine["lower"])), 1)
            if lower_t == t:
                break
            t = lower_t
            passing = int((mags >= t).sum())
        if passing > upper * k:
            return sorted(precedence(values)[:k])
    return [int(i) for i in np.flatnonzero(mags >= t)]


def candidates(spec, seeds, values):
    n, sel = len(values), spec["selector"]
    k = sel.get("entries")
    k = min(n, k) if k is not None else None
    if "density" in sel:
        k = min(n, max(1, int(np.floor(sel["density"] * n + 0.5))))
    if sel["kind"] == "top-k":
        return sorted(precedence(values)[:k])
    if sel["kind"] == "fixed":
        return [i for i in range(n) if magnitude(values[i]) >= max(magnitude(F(sel["threshold"])), 1)]
    if sel["kind"] == "random-k":
        picked = sorted(permutation(n, seeds[2:], j) for j in range(k)) if n else []
        return [i for i in picked if magnitude(values[i]) > 0]
    return sampled(values, k, sel, seeds[1]) if n else []


def slots_of(spec, n):
    p = spec["placement"]
    if "slots" in p:
        return p["slots"]
    sel = spec["selector"]
    k = min(n, max(1, int(np.floor(sel["density"] * n + 0.5)))) if "density" in sel else min(n, sel["entries"])
    return max(1, int(np.floor(p["slots_per_entry"] * k + 0.5)))


def place(spec, seeds, values, chosen):
    if spec["placement"]["kind"] == "compact":
        return chosen
    m, table = slots_of(spec, len(values)), {}
    for i in chosen:
        s = mix(i, seeds[0]) * m >> 32
        j = table.get(s)
        if j is None or (magnitude(values[i]), -i) > (magnitude(values[j]), -j):
            table[s] = i
    return [table[s] for s in sorted(table)]


def on_wire(value_format, x):
    if np.isnan(x):
        return F(np.nan)
    if value_format == "f32" or np.isinf(x):
        return F(x)
    if value_format == "f16":
        return F(np.clip(np.float16(np.clip(x, -65504, 65504)), -65504, 65504))
    b = int(F(x).view(np.uint32))
    rounded = (b + 0x7FFF + ((b >> 16) & 1)) & 0xFFFF0000
    if rounded & 0x7FFFFFFF >= 0x7F800000:
        rounded = (b & 0x80000000) | 0x7F7F0000
    return as_float(rounded)


def run(spec, gradients, scale):
    n = gradients.shape[1]
    u, v = np.zeros(n, F), np.zeros(n, F)
    fb, messages = spec["feedback"], []
    with np.errstate(all="ignore"):
        for t, g in enumerate(gradients):
            g = F(scale) * g
            if fb["kind"] == "none":
                v = g.copy()
            elif fb["kind"] == "residual":
                v = v + g
            elif fb["nesterov"]:
                u = F(fb["factor"]) * (u + g)
                v = (v + u) + g
            else:
                u = F(fb["factor"]) * u + g
                v = v + u
            seeds = step_seeds(spec["seed"], t)
            sent = place(spec, seeds, v, candidates(spec, seeds, v))
            wire = [on_wire(spec["wire"]["value"], v[i]) for i in sent]
            for i, x in zip(sent, wire):
                v[i] = v[i] - x if np.isfinite(v[i]) else F(0)
                if fb["kind"] == "momentum" and fb["masking"]:
                    u[i] = F(0)
            messages.append((sent, wire))
    if fb["kind"] == "none":
        v = np.zeros(0, F)
    return messages, v, u if fb["kind"] == "momentum" else np.zeros(0, F)


def gradient(kind, steps, n, rng):
    g = (rng.standard_normal((steps, n)) * np.exp(rng.standard_normal((steps, n)))).astype(F)
    if kind == "ties":
        g = rng.choice(np.array([-2, -1, -0.0, 0.0, 1, 2], F), (steps, n))
    elif kind == "equal":
        g = np.full((steps, n), 0.5, F) * np.where(np.arange(n) % 2, F(1), F(-1))
    elif kind == "zero":
        g = np.zeros((steps, n), F)
    elif kind == "special":
        where = rng.random((steps, n))
        g[where < 0.02] = np.nan
        g[(where > 0.02) & (where < 0.04)] = np.inf
        g[(where > 0.04) & (where < 0.06)] = -np.inf
        g[(where > 0.06) & (where < 0.08)] = F(3.4e38)
        g[(where > 0.08) & (where < 0.2)] *= F(1e-42)
    elif kind == "first":
        g[:] = 0
        g[:, 0] = 5
    elif kind == "sparse":
        g[rng.random((steps, n)) < 0.95] = 0
    elif kind == "huge":
        g *= F(1e5)
    return g


TOP = {"kind": "top-k", "density": 0.02}
DGC = {"kind": "sampled", "density": 0.02, "ratio": 0.01, "refine": {"lower": 0.8, "upper": 1.3, "iterations": 10}}
RAW = {"kind": "sampled", "density": 0.02, "ratio": 0.01}
FIXED = {"kind": "fixed", "threshold": 2.5}
RANDOM = {"kind": "random-k", "density": 0.02}
COMPACT = {"kind": "compact"}
TABLE = {"kind": "hash-table", "slots_per_entry": 4.0, "policy": "largest-magnitude"}
TIGHT = {"kind": "hash-table", "slots": 7, "policy": "largest-magnitude"}
NONE, RESIDUAL = {"kind": "none"}, {"kind": "residual"}
MOMENTUM = {"kind": "momentum", "factor": 0.9, "nesterov": False, "masking": True}
NESTEROV = {"kind": "momentum", "factor": 0.9, "nesterov": True, "masking": True}
UNMASKED = {"kind": "momentum", "factor": 0.9, "nesterov": False, "masking": False}

CASES = [
    ("topk-residual", 1000, "heavy", TOP, COMPACT, RESIDUAL, "f32", "error feedback, the plainest case"),
    ("topk-ties", 333, "ties", TOP, COMPACT, RESIDUAL, "f32", "among equal magnitudes of both signs the least index goes first"),
    ("topk-equal", 257, "equal", TOP, COMPACT, NONE, "f32", "everything ties: exactly k entries, the first"),
    ("topk-sparse", 500, "sparse", {"kind": "top-k", "density": 0.5}, COMPACT, NONE, "f32", "fewer non-zeros than k: zeros are not sent"),
    ("topk-zero", 100, "zero", TOP, COMPACT, MOMENTUM, "f32", "nothing to send"),
    ("topk-none-wanted", 50, "heavy", {"kind": "top-k", "entries": 0}, COMPACT, RESIDUAL, "f32", "k = 0"),
    ("topk-all", 64, "heavy", {"kind": "top-k", "density": 1.0}, COMPACT, UNMASKED, "f32", "density 1 without masking is momentum SGD"),
    ("topk-special", 700, "special", TOP, COMPACT, MOMENTUM, "f32", "NaN, infinities, subnormals and overflow"),
    ("topk-bf16", 900, "heavy", TOP, COMPACT, MOMENTUM, "bf16", "the residual keeps what rounding left over"),
    ("topk-f16-huge", 900, "huge", TOP, COMPACT, MOMENTUM, "f16", "values beyond f16 travel as its greatest"),
    ("topk-f16-special", 600, "special", TOP, TABLE, MOMENTUM, "f16", "infinities stay infinite on the wire"),
    ("one-element", 1, "heavy", TOP, COMPACT, MOMENTUM, "f32", "n = 1"),
    ("no-elements", 0, "heavy", TOP, COMPACT, MOMENTUM, "f32", "n = 0"),
    ("dgc", 5000, "heavy", DGC, COMPACT, MOMENTUM, "f32", "DGC as published"),
    ("dgc-nesterov", 5000, "heavy", DGC, COMPACT, NESTEROV, "f32", "Nesterov's order of operations"),
    ("dgc-ties", 5000, "ties", DGC, COMPACT, MOMENTUM, "f32", "a threshold shared by thousands: the exact selection takes over"),
    ("dgc-sparse", 5000, "sparse", DGC, COMPACT, RESIDUAL, "f32", "a sample that sees mostly zeros"),
    ("dgc-special", 5000, "special", DGC, COMPACT, MOMENTUM, "f32", "a sampled threshold that may be NaN"),
    ("dragonn", 5000, "heavy", RAW, TABLE, MOMENTUM, "f32", "DRAGONN with the rule of the largest magnitude"),
    ("dragonn-first", 300, "first", RAW, TABLE, MOMENTUM, "f32", "element 0 is an element"),
    ("dragonn-tight", 2000, "heavy", RAW, TIGHT, MOMENTUM, "bf16", "seven slots: nearly everything collides"),
    ("dragonn-ties", 2000, "ties", RAW, TIGHT, RESIDUAL, "f32", "collisions among equals"),
    ("dragonn-special", 2000, "special", RAW, TABLE, NESTEROV, "f32", "NaN in a slot"),
    ("fixed-compact", 1500, "heavy", FIXED, COMPACT, RESIDUAL, "f32", "the threshold itself passes"),
    ("fixed-ties", 1500, "ties", {"kind": "fixed", "threshold": 2.0}, COMPACT, NONE, "f32", "at or above, not above"),
    ("fixed-zero", 400, "ties", {"kind": "fixed", "threshold": 0.0}, COMPACT, NONE, "f32", "a threshold of 0 still sends no zeros"),
    ("fixed-table", 1500, "heavy", FIXED, {"kind": "hash-table", "slots": 100, "policy": "largest-magnitude"}, MOMENTUM, "f32", "a number of slots that is no power of two"),
    ("random-k", 1000, "heavy", RANDOM, COMPACT, RESIDUAL, "f32", "indices from seed and step alone"),
    ("random-k-table", 1023, "heavy", RANDOM, TABLE, RESIDUAL, "bf16", "both kinds of chance"),
    ("random-k-all", 37, "heavy", {"kind": "random-k", "density": 1.0}, COMPACT, NONE, "f32", "the permutation is one"),
]


def main(path):
    tensors, metadata = {}, {}
    for number, (name, n, data, selector, placement, feedback, value, why) in enumerate(CASES):
        steps = 3
        seed = number * 0x123456789ABCDEF + 42
        scale = 0.7 if number % 3 == 0 and feedback["kind"] == "momentum" else 1.0
        spec = dict(len=n, selector=selector, placement=placement, feedback=feedback,
                    wire={"value": value, "index": "plain"}, non_finite="propagate", seed=seed & (1 << 64) - 1)
        g = gradient(data, steps, n, np.random.default_rng(1000 + number))
        messages, v, u = run(spec, g, scale)
        indices = np.array([i for sent, _ in messages for i in sent], np.uint32)
        values = np.array([x for _, wire in messages for x in wire], F)
        starts = np.cumsum([0] + [len(sent) for sent, _ in messages]).astype(np.uint32)
        for key, tensor in dict(gradient=g, indices=indices, values=values, starts=starts, velocity=v, momentum=u).items():
            tensors[f"{name}/{key}"] = np.ascontiguousarray(tensor)
        metadata[name] = json.dumps(dict(spec=spec, scale=scale, why=why))
        print(f"{name:20} sends {[len(sent) for sent, _ in messages]}")
    save_file(tensors, path, metadata)


if __name__ == "__main__":
    main(sys.argv[1])
