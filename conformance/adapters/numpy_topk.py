"""Exact top-k with error feedback, in NumPy, on trial:

    assay run --family compression --cmd 'python conformance/adapters/numpy_topk.py'

Needs numpy and safetensors. A template for a compressor in any language: replace `compress` and `decompress`, and say in
the profile what they can do. Whatever the profile does not name is counted as unsupported and not held against it.
"""

import json
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

PROFILE = {
    "name": "numpy top-k",
    "version": "1",
    "family": "compression",
    "selectors": ["top-k"],
    "supports": ["compact", "no-feedback", "residual", "non-finite", "clipping", "steps", "ranks"],
}


def magnitudes(x):
    """Magnitudes as integers: the order of floats, NaN (all of them alike) above infinity."""
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    return np.minimum(bits, np.uint32(0x7FC00000)) if np.isnan(x).any() else bits


def compress(request, tensors):
    spec, k = request["spec"], request["derived"]["k"]
    if not isinstance(request["scale"], float | int):
        raise ValueError(f"scale: got {request['scale']}, expected a number")
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.float32(request["scale"]) * tensors["gradient"]
        if "velocity" in tensors:
            v = tensors["velocity"] + v
    m = magnitudes(v)
    # Greatest magnitude first, of equal ones the least index; zeros are never sent.
    order = np.argsort(np.uint32(0xFFFFFFFF) - m, kind="stable")[:k]
    indices = np.sort(order[m[order] > 0]).astype(np.uint32)
    values = v[indices]
    out = {"indices": indices, "values": np.where(np.isnan(values), np.float32(np.nan), values)}
    if "velocity" in tensors:
        v[indices] = 0
        out["velocity"] = v
    return out


def decompress(request, tensors):
    out = np.zeros(request["len"], dtype=np.float32)
    starts = tensors["starts"]
    for r in range(request["ranks"]):
        part = slice(starts[r], starts[r + 1])
        with np.errstate(over="ignore", invalid="ignore"):
            out[tensors["indices"][part]] += tensors["values"][part]  # an index occurs once in a message
    return {"out": out / np.float32(request["ranks"]) if request["reduction"] == "mean" else out}


def main():
    print(json.dumps(PROFILE), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            operation = {"compress": compress, "decompress": decompress}[request["op"]]
            save_file(operation(request, load_file(request["inputs"])), request["outputs"])
            answer = {"ok": True}
        except Exception as error:  # whatever it is, the trial wants to know
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
