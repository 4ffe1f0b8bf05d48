"""Golden vectors of the group lasso, from an implementation of its own: the objective written down as a convex program from
the specification's text (core/grouplasso/src/spec.rs), and minimised by an interior point method (CVXPY with Clarabel).

    python make_grouplasso.py OUT.safetensors

Each case is a problem and its minimum. Its tensors, under the case's name: `x` [n, d], `y` [n, C] or `labels` [n], `weights` [n]
if samples have weights, `minimum` [1] (the objective's least value), `w` [rows, C] and `b` [C] (where it is attained, to the
solver's accuracy). The specification is a JSON object in the file's metadata under the same name, with a line `why`.
Made with cvxpy 1.9.3, clarabel 0.11, numpy 2.4, safetensors 0.8.
"""
import json
import sys

import cvxpy as cp
import numpy as np
from safetensors.numpy import save_file


def base(**changes):
    spec = {
        "loss": "least_squares",
        "groups": "rows",
        "weights": "sqrt_size",
        "penalty": "group_lasso",
        "lambda": 0.4,
        "intercept": True,
        "standardise": {"centre": False, "scale": False},
    }
    return {**spec, **changes}


SIZES = {"sizes": [1, 3, 2, 2]}
LISTS = {"lists": [[6, 0, 3], [1], [2, 7, 4, 5]]}
OVERLAP = {"overlapping": [[0, 1, 2], [2, 3, 4, 1], [5, 6, 7, 0]]}
SPARSE = {"sparse_group": {"tau": 0.3}}
ELASTIC = {"elastic_net": {"alpha": 0.6}}
RIDGE = {"elastic_net": {"alpha": 0.0}}
MN = "multinomial"
CASES = {
    "ls/rows": (base(), {}, "the plain problem of Head2Toe with squares"),
    "ls/no-intercept": (base(intercept=False), {}, "no intercept"),
    "ls/one-output": (base(groups=SIZES), {"c": 1}, "the group lasso of statistics: one output, ragged groups"),
    "ls/wide": (base(**{"lambda": 0.2}), {"n": 10, "d": 30}, "more features than samples"),
    "ls/sizes": (base(groups=SIZES), {}, "ragged consecutive groups, weight √size"),
    "ls/sizes-ones": (base(groups=SIZES, weights="ones"), {}, "the same with weight 1"),
    "ls/lists": (base(groups=LISTS), {}, "groups by lists, in no order"),
    "ls/overlapping": (base(groups=OVERLAP), {}, "latent copies"),
    "ls/given-weights": (base(weights={"given": [0.5, 1, 2, 1, 0.7, 1, 3, 1]}), {}, "a weight a group"),
    "ls/free-group": (base(groups=SIZES, weights={"given": [1, 0, 1, 2]}), {}, "a group that pays nothing"),
    "ls/sparse-group": (base(groups=SIZES, penalty=SPARSE), {}, "zeros within groups"),
    "ls/lasso": (base(groups=SIZES, penalty={"sparse_group": {"tau": 1.0}}), {}, "τ = 1: the lasso"),
    "ls/elastic-net": (base(groups=SIZES, penalty=ELASTIC), {}, "norm and squares"),
    "ls/ridge": (base(penalty=RIDGE), {}, "α = 0: squares only"),
    "ls/sample-weights": (base(), {"weighted": True}, "samples of unequal weight, one of none"),
    "ls/standardised": (base(standardise={"centre": True, "scale": True}), {"weighted": True}, "weighted means and deviations"),
    "ls/scaled-only": (base(intercept=False, standardise={"centre": False, "scale": True}), {}, "deviation about the mean, mean kept"),
    "ls/centred-only": (base(intercept=False, standardise={"centre": True, "scale": False}), {}, "centred, no intercept"),
    "ls/constant-column": (base(standardise={"centre": True, "scale": True}), {"constant": True}, "a constant column is not divided"),
    "ls/no-penalty": (base(**{"lambda": 0.0}), {}, "λ = 0"),
    "mn/rows": (base(loss=MN, **{"lambda": 0.07}), {}, "Head2Toe's own problem"),
    "mn/no-intercept": (base(loss=MN, intercept=False, **{"lambda": 0.07}), {}, "no intercept"),
    "mn/two-classes": (base(loss=MN, **{"lambda": 0.07}), {"c": 2}, "logistic regression with two rows of coefficients"),
    "mn/lists": (base(loss=MN, groups=LISTS, **{"lambda": 0.06}), {}, "groups by lists"),
    "mn/overlapping": (base(loss=MN, groups=OVERLAP, **{"lambda": 0.06}), {}, "latent copies"),
    "mn/sparse-group": (base(loss=MN, groups=SIZES, penalty=SPARSE, **{"lambda": 0.06}), {}, "zeros within groups"),
    "mn/elastic-net": (base(loss=MN, groups=SIZES, penalty=ELASTIC, **{"lambda": 0.06}), {}, "norm and squares"),
    "mn/sample-weights": (base(loss=MN, **{"lambda": 0.07}), {"weighted": True}, "samples of unequal weight"),
    "mn/standardised": (base(loss=MN, standardise={"centre": True, "scale": True}, **{"lambda": 0.07}), {}, "standardised"),
    "mn/absent-class": (base(loss=MN, **{"lambda": 0.07}), {"absent": True}, "a class nobody has: its intercept is −∞"),
    "mn/free-group": (base(loss=MN, groups=SIZES, weights={"given": [0, 1, 1, 1]}, **{"lambda": 0.06}), {}, "a free group"),
}


def data(seed, spec, n=24, d=8, c=3, weighted=False, constant=False, absent=False):
    rng = np.random.default_rng(seed)
    # Thirds of small integers: no value is special in binary, and few repeat.
    x = rng.integers(-30, 40, (n, d)) / 12.0
    if constant:
        x[:, 2] = 0.1
    z = x[:, : max(2, d // 3)] @ rng.standard_normal((max(2, d // 3), c))
    out = {"x": x}
    if spec["loss"] == MN:
        k = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
        k[:c] = np.arange(c)
        if absent:
            k[k == 1] = 2
        out["labels"] = k.astype(np.uint32)
    else:
        out["y"] = z + rng.standard_normal(z.shape) + 2.0
    if weighted:
        out["weights"] = np.where(np.arange(n) == n - 1, 0.0, 1.0 + (np.arange(n) % 4) / 2)
    return out, c


def groups_of(spec, d):
    """For each group its features; the rows of W that are its own; whether rows are copies."""
    kind = spec["groups"]
    if kind == "rows":
        lists, copies = [[j] for j in range(d)], False
    elif "sizes" in kind:
        ends = np.cumsum(kind["sizes"])
        lists, copies = [list(range(e - s, e)) for s, e in zip(kind["sizes"], ends)], False
    else:
        copies = "overlapping" in kind
        lists = kind["overlapping" if copies else "lists"]
    if not copies:
        return lists, lists, list(range(d))
    starts = np.cumsum([0] + [len(g) for g in lists])
    return lists, [list(range(a, b)) for a, b in zip(starts, starts[1:])], [j for g in lists for j in g]


def weights_of(spec, lists):
    kind = spec["weights"]
    if kind == "sqrt_size":
        return [len(g) ** 0.5 for g in lists]
    return [1.0] * len(lists) if kind == "ones" else kind["given"]


def standardised(spec, x, omega):
    mean = omega @ x
    deviation = np.sqrt(omega @ (x - mean) ** 2)
    constant = deviation <= len(x) * np.finfo(float).eps * np.abs(x).max(0)
    x = x - mean if spec["standardise"]["centre"] else x
    return x / np.where(constant, 1.0, deviation) if spec["standardise"]["scale"] else x


def penalty_of(spec, weight, block):
    """h_g at a block of rows, as an expression."""
    flat = cp.vec(block, order="C")
    kind, lam = spec["penalty"], spec["lambda"]
    if weight == 0 or lam == 0:
        return 0
    if kind == "group_lasso":
        return lam * weight * cp.norm(flat, 2)
    if "sparse_group" in kind:
        tau = kind["sparse_group"]["tau"]
        return lam * (tau * cp.norm(flat, 1) + (1 - tau) * weight * cp.norm(flat, 2))
    alpha = kind["elastic_net"]["alpha"]
    return lam * weight * (alpha * cp.norm(flat, 2) + (1 - alpha) / 2 * cp.sum_squares(flat))


def solve(spec, given, c):
    x = given["x"]
    n, d = x.shape
    omega = given.get("weights", np.ones(n))
    omega = omega / omega.sum()
    lists, rows, features = groups_of(spec, d)
    x = standardised(spec, x, omega)
    present = list(range(c))
    if spec["loss"] == MN and spec["intercept"]:
        present = sorted(set(given["labels"][omega > 0]))
    w, b = cp.Variable((len(features), len(present))), cp.Variable(len(present))
    z = x[:, features] @ w + (np.ones((n, 1)) @ cp.reshape(b, (1, len(present)), order="C") if spec["intercept"] else 0)
    if spec["loss"] == MN:
        own = np.array([[float(k == p) for p in present] for k in given["labels"]])
        loss = omega @ (cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(own, z), axis=1))
    else:
        loss = 0.5 * cp.sum_squares(cp.multiply(np.sqrt(omega)[:, None], given["y"] - z))
    h = sum(penalty_of(spec, weight, w[own, :]) for weight, own in zip(weights_of(spec, lists), rows))
    constraints = [b[0] == 0] if spec["loss"] == MN and spec["intercept"] else []
    program = cp.Problem(cp.Minimize(loss + h), constraints)
    # As fine as the interior point method gets: its last steps may end on rounding, at a gap of some 1e-11.
    fine = {f"tol_{kind}": 1e-11 for kind in ("gap_abs", "gap_rel", "feas")}
    program.solve(solver=cp.CLARABEL, **fine, max_iter=500, warm_start=False)
    assert program.status in ("optimal", "optimal_inaccurate"), program.status
    full_w, full_b = np.zeros((len(features), c)), np.full(c, -np.inf if len(present) < c else 0.0)
    full_w[:, present] = w.value
    if spec["intercept"]:
        full_b[present] = b.value
    return program.value, full_w, full_b


def main(out):
    tensors, metadata = {}, {}
    for seed, (name, (spec, options, why)) in enumerate(CASES.items()):
        given, c = data(seed, spec, **options)
        minimum, w, b = solve(spec, given, c)
        for key, value in {**given, "minimum": np.array([minimum]), "w": w, "b": b}.items():
            tensors[f"{name}/{key}"] = np.ascontiguousarray(value)
        metadata[name] = json.dumps({"why": why, "spec": spec, "classes": c})
        print(f"{name:24} {minimum:.12g} {int((np.abs(w).max(1) > 1e-7).sum())} of {len(w)} rows", file=sys.stderr)
    save_file(tensors, out, metadata)


if __name__ == "__main__":
    main(sys.argv[1])
