"""What the adapters of group-lasso solvers share: the line protocol of `assay run --family grouplasso --cmd …`.

A solver adapter declares a profile and gives a function; `serve` does the rest. Needs numpy and safetensors.
"""

import json
import sys
import warnings

import numpy as np
from safetensors.numpy import load_file, save_file


class Unsupported(Exception):
    """The solver has no way to say this problem."""


class Problem:
    """One request, with the data as 64-bit or 32-bit arrays as they came."""

    def __init__(self, request):
        tensors = load_file(request["inputs"])
        spec, derived = request["spec"], request["derived"]
        if not isinstance(spec["lambda"], float | int) or not isinstance(request["gap"], float | int):
            raise ValueError("lambda or gap is not finite")
        if derived is None:
            raise ValueError("the problem is ill-posed")
        self.x = np.asfortranarray(tensors["x"])
        self.dtype = self.x.dtype
        self.loss = spec["loss"]
        self.lambda_ = spec["lambda"]
        self.gap = request["gap"]
        self.intercept = spec["intercept"]
        self.penalty = spec["penalty"]
        self.groups, self.weights = derived["groups"], np.array(derived["weights"])
        self.classes = request.get("classes")
        self.sample_weights = tensors.get("sample_weights")
        if self.loss == "multinomial":
            self.labels = tensors["labels"].astype(int)
            self.y = np.eye(self.classes, dtype=self.dtype)[self.labels]
        else:
            self.labels, self.y = None, np.asfortranarray(tensors["y"].astype(self.dtype))
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError("data is not finite")

    def null(self):
        """The residual of the model without features, and the sample weights over their sum."""
        n = len(self.y)
        omega = np.full(n, 1 / n) if self.sample_weights is None else self.sample_weights / self.sample_weights.sum()
        if self.loss == "multinomial":
            start = omega @ self.y if self.intercept else np.full(self.classes, 1 / self.classes)
        else:
            start = omega @ self.y if self.intercept else np.zeros(self.y.shape[1])
        return self.y - start, omega

    def lambda_max(self):
        """Where the group lasso is empty."""
        residual, omega = self.null()
        u = self.x.T @ (omega[:, None] * residual)
        norms = [np.linalg.norm(u[rows]) / weight for rows, weight in zip(self.groups, self.weights) if weight > 0]
        return max(norms)


def serve(profile, solve):
    """Answers requests by `solve(problem)`, which returns `w` of rows × outputs and `b`."""
    warnings.simplefilter("ignore")
    print(json.dumps({"family": "grouplasso", "operations": ["solve"], **profile}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            problem = Problem(request)
            w, b = solve(problem)
            outputs = problem.classes or problem.y.shape[1]
            w = np.ascontiguousarray(np.asarray(w, dtype=np.float64).reshape(-1, outputs))
            b = np.ascontiguousarray(np.broadcast_to(np.asarray(b, dtype=np.float64), (outputs,)))
            save_file({"w": w, "b": b}, request["outputs"])
            answer = {"ok": True}
        except Unsupported as why:
            answer = {"unsupported": str(why)}
        except Exception as error:  # whatever it is, the trial wants to know
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
