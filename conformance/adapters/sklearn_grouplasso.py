"""scikit-learn's MultiTaskLasso and MultiTaskElasticNet on trial:

    assay run --family grouplasso --cmd 'python conformance/adapters/sklearn_grouplasso.py'

With `--tolerance default` at the tolerance that comes with it, otherwise at one that should give the gap asked for: its own
criterion is a gap too, relative to ‖Y‖²/n. Needs scikit-learn, numpy and safetensors.
"""

import sys

import sklearn
from grouplasso_protocol import serve
from sklearn.linear_model import MultiTaskElasticNet, MultiTaskLasso

DEFAULT = "default" in sys.argv
PROFILE = {
    "name": "scikit-learn" + (" at its default tolerance" if DEFAULT else ""),
    "version": sklearn.__version__,
    "supports": ["f64", "f32", "least-squares", "outputs", "rows", "group-lasso", "elastic-net", "intercept",
                 "no-intercept", "degenerate", "extremes", "gap-1e-6", "gap-1e-8", "refusal"],
}


def solve(problem):
    tolerance = 1e-4 if DEFAULT else 0.5 * problem.gap
    options = {"alpha": problem.lambda_, "fit_intercept": problem.intercept, "tol": tolerance,
               "max_iter": 1000 if DEFAULT else 1_000_000}
    if problem.penalty["kind"] == "elastic-net":
        model = MultiTaskElasticNet(l1_ratio=problem.penalty["alpha"], **options)
    else:
        model = MultiTaskLasso(**options)
    model.fit(problem.x, problem.y)
    return model.coef_.T, model.intercept_


if __name__ == "__main__":
    serve(PROFILE, solve)
