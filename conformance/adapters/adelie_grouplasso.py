"""adelie's grpnet on trial, least squares and multinomial, each row a group, or with `--groups` consecutive groups of one
output:

    assay run --family grouplasso --cmd 'python conformance/adapters/adelie_grouplasso.py'

adelie divides the loss of several responses by their number, so its λ is ours over C. It descends to λ in ten steps, as it is
meant to. With `--tolerance default` at the tolerances that come with it, otherwise at the least it takes. Needs adelie,
numpy and safetensors.
"""

import sys
from importlib.metadata import version

import adelie as ad
import numpy as np
from grouplasso_protocol import Unsupported, serve

DEFAULT, GROUPS = "default" in sys.argv, "--groups" in sys.argv
COMMON = ["f64", "least-squares", "rows", "group-lasso", "elastic-net", "weights", "intercept", "no-intercept",
          "sample-weights", "degenerate", "extremes", "gap-1e-6", "gap-1e-8", "refusal"]
PROFILE = {
    "name": "adelie" + (" in groups" if GROUPS else "") + (" at its default tolerance" if DEFAULT else ""),
    "version": version("adelie"),
    "supports": COMMON + (["ranges"] if GROUPS else ["multinomial", "outputs", "absent-class"]),
}


def solve(problem):
    outputs = problem.classes or problem.y.shape[1]
    weights = problem.sample_weights
    if weights is not None:
        weights = weights / weights.sum()
    several = outputs > 1
    y = np.ascontiguousarray(problem.y if several else problem.y[:, 0])
    if GROUPS and several:
        raise Unsupported("several outputs")
    if problem.loss == "multinomial":
        glm = ad.glm.multinomial(y, weights=weights)
    elif several:
        glm = ad.glm.multigaussian(y, weights=weights)
    else:
        glm = ad.glm.gaussian(y, weights=weights)
    scale = outputs if several else 1
    alpha = problem.penalty["alpha"] if problem.penalty["kind"] == "elastic-net" else 1
    largest = problem.lambda_max() / max(alpha, 1e-3)
    lambdas = np.geomspace(largest, problem.lambda_, 11)[1:] if largest > problem.lambda_ else [problem.lambda_]
    options = {} if DEFAULT else {"tol": 1e-14, "irls_tol": 1e-14, "max_iters": 1_000_000}
    if not several:
        options["groups"] = np.array([rows[0] for rows in problem.groups])
    state = ad.grpnet(np.asfortranarray(problem.x), glm, alpha=alpha, penalty=problem.weights,
                      lmda_path=np.asarray(lambdas) / scale, intercept=problem.intercept, early_exit=False, adev_tol=1.0,
                      progress_bar=False, **options)
    if len(state.lmdas) < len(lambdas):
        raise RuntimeError(f"the path ended after {len(state.lmdas)} of {len(lambdas)} points")
    w = np.asarray(state.betas[-1].todense()).reshape(-1, outputs)
    return w, state.intercepts[-1] if problem.intercept else np.zeros(outputs)


if __name__ == "__main__":
    serve(PROFILE, solve)
