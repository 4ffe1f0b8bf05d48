"""celer's MultiTaskLasso on trial, or with `--groups` its GroupLasso of one output:

    assay run --family grouplasso --cmd 'python conformance/adapters/celer_grouplasso.py'

celer 0.7.4's class MultiTaskLasso does not work with scikit-learn from 1.6 on (it calls a method that is gone), so its function
`mtl_path` is called, on centred data. With `--tolerance default` at the tolerance that comes with it, otherwise at one that should give the gap asked for.
Needs celer, numpy and safetensors.
"""

import sys

import celer
import numpy as np
from celer.homotopy import mtl_path
from grouplasso_protocol import Unsupported, serve

DEFAULT, GROUPS = "default" in sys.argv, "--groups" in sys.argv
COMMON = ["f64", "f32", "least-squares", "group-lasso", "intercept", "no-intercept", "degenerate", "extremes",
          "gap-1e-6", "gap-1e-8", "refusal"]
PROFILE = {
    "name": "celer" + (" GroupLasso" if GROUPS else " MultiTaskLasso") + (" at its default tolerance" if DEFAULT else ""),
    "version": celer.__version__,
    "supports": COMMON + (["rows", "ranges", "lists", "weights"] if GROUPS else ["rows", "outputs"]),
}


def multi_task(problem):
    x, y = problem.x, problem.y
    means = (x.mean(0), y.mean(0)) if problem.intercept else (0 * x[0], 0 * y[0])
    options = {} if DEFAULT else {"tol": 0.5 * problem.gap, "max_iter": 500, "max_epochs": 1_000_000}
    centred = np.asfortranarray(x - means[0]), np.asfortranarray(y - means[1])
    _, coefficients, _ = mtl_path(*centred, alphas=np.array([problem.lambda_]), **options)
    w = coefficients[..., 0].T
    return w, means[1] - means[0] @ w


def solve(problem):
    if not GROUPS:
        return multi_task(problem)
    if problem.y.shape[1] > 1:
        raise Unsupported("several outputs")
    options = {} if DEFAULT else {"tol": 0.5 * problem.gap, "max_iter": 500, "max_epochs": 1_000_000}
    weights = problem.weights.astype(problem.dtype)
    model = celer.GroupLasso(groups=problem.groups, weights=weights, alpha=problem.lambda_,
                             fit_intercept=problem.intercept, **options)
    model.fit(problem.x, problem.y[:, 0])
    return model.coef_, model.intercept_


if __name__ == "__main__":
    serve(PROFILE, solve)
