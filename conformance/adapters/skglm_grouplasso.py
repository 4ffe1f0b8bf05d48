"""skglm's MultiTaskLasso on trial, or with `--groups` its GroupLasso of one output:

    assay run --family grouplasso --cmd 'python conformance/adapters/skglm_grouplasso.py'

Its tolerance is of the optimality conditions and not of a gap: with `--tolerance default` the one that comes with it,
otherwise a thousandth of λ for a gap of 1e-4 and in proportion to its root below. Needs skglm, numpy and safetensors.
"""

import sys
from importlib.metadata import version

import skglm
from grouplasso_protocol import Unsupported, serve

DEFAULT, GROUPS = "default" in sys.argv, "--groups" in sys.argv
COMMON = ["f64", "least-squares", "group-lasso", "intercept", "no-intercept", "degenerate", "extremes",
          "gap-1e-6", "gap-1e-8", "refusal"]
PROFILE = {
    "name": "skglm" + (" GroupLasso" if GROUPS else " MultiTaskLasso") + (" at its default tolerance" if DEFAULT else ""),
    "version": version("skglm"),
    "supports": COMMON + (["rows", "ranges", "lists", "weights"] if GROUPS else ["rows", "outputs"]),
}


def solve(problem):
    options = {"alpha": problem.lambda_, "fit_intercept": problem.intercept}
    if not DEFAULT:
        tolerance = 0.1 * problem.lambda_ * problem.gap**0.5
        options |= {"tol": tolerance, "max_iter": 500, "max_epochs": 1_000_000}
    if not GROUPS:
        model = skglm.MultiTaskLasso(**options).fit(problem.x, problem.y)
        return model.coef_.T, model.intercept_
    if problem.y.shape[1] > 1:
        raise Unsupported("several outputs")
    model = skglm.GroupLasso(groups=problem.groups, weights=problem.weights, **options)
    model.fit(problem.x, problem.y[:, 0])
    return model.coef_, model.intercept_


if __name__ == "__main__":
    serve(PROFILE, solve)
