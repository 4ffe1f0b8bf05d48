#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention on the CPU, as a subject for `assay run --cmd`.

    assay run --family attention --cmd 'python conformance/adapters/torch_sdpa.py [OPTIONS]'

Speaks the `--cmd` protocol: a profile unasked, then one JSON line of answer for each line of request. Needs `torch`,
`numpy` and `safetensors`. What the options are for, and why the profile says what it says: docs/src/torch.md.
"""
import argparse
import contextlib
import json
import math
import sys
import traceback

import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

FORMATS = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

# Everything a request's spec may say. A key outside of it could change the problem, so it is refused.
DIMENSIONS = {"batch", "q_heads", "kv_heads", "head_dim", "value_dim", "q_len", "kv_len"}
UNDERSTOOD = DIMENSIONS | {"scale", "causal", "causal_align", "window", "alibi", "kv_lengths", "block_mask", "source"}


class Unsupported(Exception):
    """This problem is outside of what the function can express."""


def contracts(backend):
    """What the kernels promise about their arithmetic, by storage format; what is left out is strict."""
    if backend == "math":
        # Matrix products and softmax in float32 also for 16-bit tensors (unless allow_fp16_bf16_reduction_math_sdp is
        # set), and one rounding at the end.
        return {}
    # `tile`: gradients are added up in place, once every 32 query rows (64 from 192 rows on, 256 from 768) for dK and
    # dV and once every 512 keys for dQ; the forward pass rescales once every 512 keys.
    wide = {"tile": 32}
    # exp in the forward pass is a polynomial; the worst found is 6 units, near the low end of its range.
    single = wide | {"exp_error": 8}
    half = lambda name: wide | {
        # P is rounded to the tensors' format for P·V, while its unrounded values go into the denominator.
        "probabilities": name,
        "sums_rounded_probabilities": False,
        # So are the recomputed P for Pᵀ·dO and dS for dS·K and dSᵀ·Q.
        "score_gradients": name,
        # dQ, dK and dV live in their own format from tile to tile, and over the query heads of a group.
        "gradient_accum": name,
        # A cruder exp serves 16-bit tensors: the worst found is 1850 units of float32 (1.1e-4), and exp(0) is
        # 1 − 5.3e-5. The backward pass has an accurate one.
        "exp_error": 2048,
    }
    # Where the processor has bf16 dot products, they take subnormal operands for 0 and flush subnormal results.
    return {"f64": wide, "f32": single, "f16": half("f16"), "bf16": half("bf16") | {"flushes_subnormals": True}}


def profile(options):
    supports = ["gqa", "causal-top-left", "causal-bottom-right", "window", "alibi", "bias", "lengths", "block-mask"]
    supports += ["empty-rows", "decode"]
    if options.backend != "flash":
        supports.append("value-dim")
    name = "torch.nn.functional.scaled_dot_product_attention"
    if options.backend != "default":
        name += f" ({options.backend})"
    if options.plant:
        name += f", planted {options.plant[0]}={options.plant[1]}"
    return {
        "name": name,
        "version": torch.__version__,
        "formats": list(FORMATS),
        "supports": supports,
        "backward": True,
        "deterministic": True,
        "contract": contracts(options.backend),
    }


def refuse_what_it_lacks(spec, tensors):
    for key in spec.keys() - UNDERSTOOD:
        if spec[key] is not None:
            raise Unsupported(f"no argument for {key}")
    for tensor, why in [("sink", "no attention sinks"), ("d_lse", "no gradient flows into its log-sum-exp")]:
        if tensor in tensors:
            raise Unsupported(why)


def visible(spec, q, k):
    """The mask [batch | 1, heads | 1, n, s], or None where everything is visible."""
    (b, h, n, _), s = q.shape, k.shape[2]
    window, lengths, blocks = spec.get("window"), spec.get("kv_lengths"), spec.get("block_mask")
    if not (spec.get("causal") or window or lengths or blocks):
        return None
    lengths = torch.tensor(lengths if lengths else [s], dtype=torch.int64).view(-1, 1, 1, 1)
    i, j = diagonal(spec, lengths, n), torch.arange(s)
    mask = (j < lengths).expand(lengths.shape[0], 1, n, s)
    if spec.get("causal"):
        mask = mask & (j <= i)
    left, right = window or (None, None)
    if left is not None:
        mask = mask & (j >= i - min(left, 2**40))
    if right is not None:
        mask = mask & (j <= i + min(right, 2**40))
    if blocks:
        entries = torch.tensor(blocks["blocks"], dtype=torch.bool)
        rows, columns = torch.arange(n) // blocks["block_q"], j // blocks["block_k"]
        mask = mask & entries[:, :, rows][:, :, :, columns]
    return mask


def diagonal(spec, lengths, n):
    """Key position of each query: i + offset, with the sequence's own length."""
    top_left = spec.get("causal_align", "bottom_right") == "top_left"
    return torch.arange(n).view(1, 1, n, 1) + (0 if top_left else lengths - n)


def attention_mask(spec, q, k, bias):
    """What goes in as `attn_mask`: booleans, or a float tensor where scores are added to."""
    mask = visible(spec, q, k)
    slopes = spec.get("alibi")
    if bias is None and not slopes:
        return mask
    # Wider than 16-bit tensors, which it may be: distances times slopes do not fit 8 bits.
    added = torch.zeros((), dtype=torch.promote_types(q.dtype, torch.float32))
    if slopes:
        lengths = torch.tensor(spec.get("kv_lengths") or [k.shape[2]], dtype=torch.int64).view(-1, 1, 1, 1)
        distance = (diagonal(spec, lengths, q.shape[2]) - torch.arange(k.shape[2])).abs()
        added = (-torch.tensor(slopes, dtype=torch.float64).view(1, -1, 1, 1) * distance).to(added.dtype)
    if bias is not None:
        added = bias if not slopes else bias.to(added.dtype) + added
    if mask is not None:
        added = torch.where(mask, added, -math.inf)
    return added


def keywords(spec, q, k, bias, plant):
    """Keyword arguments of the call."""
    common = {"scale": spec["scale"] * plant, "enable_gqa": q.shape[1] != k.shape[1]}
    alone = bias is None and not any(spec.get(key) for key in ("window", "alibi", "kv_lengths", "block_mask"))
    corners_meet = spec.get("causal_align") == "top_left" or q.shape[2] == k.shape[2]
    if spec.get("causal") and alone and corners_meet:
        return common | {"is_causal": True}
    return common | {"attn_mask": attention_mask(spec, q, k, bias)}


def log_sum_exp(q, k, v, call, options):
    """The flash kernel's log-sum-exp, or None where another kernel is taken. Not part of any public function."""
    mask, causal = call.get("attn_mask"), call.get("is_causal", False)
    gqa, scale = call["enable_gqa"], call["scale"]
    if torch._fused_sdp_choice(q, k, v, mask, 0.0, causal, scale=scale, enable_gqa=gqa) != 1:
        return None
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
    if gqa:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    lse = FLASH(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)[1]
    if options.lse == "convention" and mask is not None:
        lse = lse.masked_fill((mask == -math.inf).all(-1), -math.inf)
    return lse


def parts(spec, options):
    """One call for the whole batch, or one for each sequence with nothing but its own keys."""
    lengths = spec.get("kv_lengths")
    if options.lengths == "mask" or not lengths:
        return [(slice(None), slice(None), spec)]
    rest = {key: value for key, value in spec.items() if key != "kv_lengths"}
    return [(slice(b, b + 1), slice(length), rest | own_blocks(spec, b)) for b, length in enumerate(lengths)]


def own_blocks(spec, b):
    mask = spec.get("block_mask")
    if not mask or len(mask["blocks"]) == 1:
        return {}
    return {"block_mask": mask | {"blocks": [mask["blocks"][b]]}}


def solve(spec, tensors, want, options):
    """The wanted tensors that can be had."""
    refuse_what_it_lacks(spec, tensors)
    gradients = {"d_" + name for name in ("q", "k", "v", "bias")} & set(want)
    inputs = {name: tensors[name] for name in ("q", "k", "v", "bias") if name in tensors}
    if options.backend == "flash":
        if inputs["q"].shape[3] != inputs["v"].shape[3]:
            raise Unsupported("the flash kernel wants values as long as keys")
        gradients.discard("d_bias")  # it has none to give
    for name, tensor in inputs.items():
        tensor.requires_grad_("d_" + name in gradients)
    plant = options.plant[1] if options.plant else 1.0
    outputs, sums = [], []
    for batch, keys, part in parts(spec, options):
        q, k, v = inputs["q"][batch], inputs["k"][batch, :, keys], inputs["v"][batch, :, keys]
        bias = inputs.get("bias")
        if bias is not None:
            bias = bias[batch if bias.shape[0] > 1 else slice(None), :, :, keys if bias.shape[3] > 1 else slice(None)]
        call = keywords(part, q, k, bias, plant)
        outputs.append(scaled_dot_product_attention(q, k, v, **call))
        if "lse" in want:
            with torch.no_grad():
                sums.append(log_sum_exp(q, k, v, call, options))
    answer = {"o": torch.cat(outputs)}
    if sums and all(lse is not None for lse in sums):
        answer["lse"] = torch.cat(sums)
    if gradients and answer["o"].requires_grad:
        names = sorted(gradients)
        found = torch.autograd.grad(
            answer["o"], [inputs[name[2:]] for name in names], tensors["d_o"], allow_unused=True, materialize_grads=True
        )
        answer |= zip(names, found)
    return {name: tensor.detach().contiguous() for name, tensor in answer.items() if name in want}


def answer(line, options):
    try:
        request = json.loads(line)
        if request.get("family") != "attention":
            raise Unsupported("attention only")
        tensors = load_file(request["inputs"])
        only = contextlib.nullcontext() if options.backend == "default" else sdpa_kernel(BACKENDS[options.backend])
        with only:
            outputs = solve(request["spec"], tensors, request["want"], options)
        save_file(outputs, request["outputs"])
        missing = [name for name in request["want"] if name not in outputs]
        return {"ok": True, "missing": missing} if missing else {"ok": True}
    except Unsupported as why:
        return {"unsupported": str(why)}
    except Exception as error:
        if "No available kernel" in str(error):  # how a backend that was insisted on says so
            return {"unsupported": f"no {options.backend} kernel for this problem"}
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def planted(text):
    name, _, value = text.partition("=")
    if name != "scale":
        raise argparse.ArgumentTypeError("scale=FACTOR is all there is to plant")
    return name, float(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["default", *BACKENDS], default="default", help="kernel to insist on")
    parser.add_argument("--lengths", choices=["slice", "mask"], default="slice", help="how kv_lengths are expressed")
    parser.add_argument(
        "--lse", choices=["convention", "kernel"], default="convention", help="for a row without keys: our -inf, or its 0"
    )
    parser.add_argument("--plant", type=planted, metavar="scale=FACTOR", help="a fault, to see it caught")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(profile(options)), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line, options)), flush=True)


if __name__ == "__main__":
    main()
