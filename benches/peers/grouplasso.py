#!/usr/bin/env python3
"""Tilewright's group lasso beside celer, scikit-learn, skglm and adelie, on the same problems, in one run.

    python benches/peers/grouplasso.py [--problems DIR] [--only ls_layers_c10 ...] [--rounds 3] [--limit 60] [--json FILE]

Needs numpy < 2, scikit-learn, celer, skglm and adelie (a peer that is not there is left out, and said so), and builds the Rust
side with cargo. `DIR` keeps the problems (a gigabyte); what is not there is generated: 1,000 samples, 20,000 features,
standardised, 10 or 100 outputs or classes, 50 true features, no intercept, columns either an AR(1) chain ("ar") or eight
blocks of rectified mixtures of 64 factors, as Head2Toe meets them ("layers").

Each solver's own tolerance is tightened until *this script's* certificate, in float64, shows the gap asked for; the times are of a
cold solve at that tolerance, without loading, layout or compilation: medians over rounds in which every solver runs once, in turn.
Wall and CPU seconds, two threads each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

THREADS = "2"
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = THREADS

import numpy as np  # noqa: E402  after the number of threads

warnings.filterwarnings("ignore")

# name: (loss, design, n, d, outputs, seed)
PROBLEMS = {
    f"{loss}_{design}_c{outputs}": (loss, design, 1000, 20000, outputs, seed)
    for seed, (loss, design, outputs) in enumerate(
        (loss, design, outputs) for loss in ("ls", "mn") for design in ("ar", "layers") for outputs in (10, 100)
    )
}
# (problem, λmax over λ, gaps)
SINGLES = [
    ("ls_layers_c10", 10, (1e-4, 1e-6, 1e-8)),
    ("ls_ar_c10", 10, (1e-6,)),
    ("ls_layers_c100", 10, (1e-6,)),
    ("ls_layers_c10", 50, (1e-6,)),
    ("mn_layers_c10", 10, (1e-4, 1e-6, 1e-8)),
    ("mn_ar_c10", 10, (1e-4, 1e-6)),
    ("mn_layers_c100", 10, (1e-4,)),
    ("mn_layers_c10", 50, (1e-4,)),
]
PATHS = ["ls_layers_c10", "mn_layers_c10"]
POINTS = 50


# ---- problems


def design(kind, n, d, rng):
    if kind == "ar":
        columns = rng.standard_normal((d, n))
        for j in range(1, d):
            columns[j] = 0.7 * columns[j - 1] + np.sqrt(0.51) * columns[j]
    else:
        factors = rng.standard_normal((n, 64))
        blocks = []
        for width in [d // 8] * 7 + [d - 7 * (d // 8)]:
            mixed = factors @ rng.standard_normal((64, width)) / 8 + 0.5 * rng.standard_normal((n, width)) - 0.25
            rectified = np.maximum(mixed, 0)
            blocks.append((rectified / np.linalg.norm(rectified, axis=1, keepdims=True)).T)
        columns = np.concatenate(blocks)
    columns -= columns.mean(1, keepdims=True)
    return columns / columns.std(1, keepdims=True)


def generate(folder, name):
    loss, kind, n, d, outputs, seed = PROBLEMS[name]
    rng = np.random.default_rng(100 + seed)
    columns = design(kind, n, d, rng)
    support = rng.choice(d, 50, replace=False)
    signal = columns[support].T @ rng.standard_normal((50, outputs))
    signal /= signal.std()
    if loss == "ls":
        y = signal + rng.standard_normal(signal.shape) / np.sqrt(3)
        y -= y.mean(0)
        null = float((y**2).sum() / (2 * n))
        gradient = columns @ y / n
    else:
        labels = np.argmax(3 * signal + rng.gumbel(size=signal.shape), axis=1)
        labels[:outputs] = np.arange(outputs)
        y = np.eye(outputs)[labels]
        null = float(np.log(outputs))
        gradient = columns @ (y - 1 / outputs) / n
    os.makedirs(folder, exist_ok=True)
    np.save(os.path.join(folder, "XT.npy"), columns)
    np.save(os.path.join(folder, "Y.npy"), y)
    largest = float(np.linalg.norm(gradient, axis=1).max())
    with open(os.path.join(folder, "meta.json"), "w") as file:
        json.dump({"loss": loss, "lam_max": largest, "null_objective": null}, file)


class Problem:
    def __init__(self, root, name):
        self.name, self.folder = name, os.path.join(root, name)
        if not os.path.exists(os.path.join(self.folder, "meta.json")):
            generate(self.folder, name)
        with open(os.path.join(self.folder, "meta.json")) as file:
            meta = json.load(file)
        self.loss, self.largest, self.null = meta["loss"], meta["lam_max"], meta["null_objective"]
        self.columns, self.y = np.load(os.path.join(self.folder, "XT.npy")), np.load(os.path.join(self.folder, "Y.npy"))
        self.x = self.columns.T  # n × d, column-major

    def gap(self, w, lam):
        """The relative duality gap of coefficients from anywhere, in float64."""
        n = len(self.y)
        w = np.asarray(w, dtype=np.float64)
        norms = np.linalg.norm(w, axis=1)
        active = np.flatnonzero(norms)
        z = self.columns[active].T @ w[active] if len(active) else np.zeros_like(self.y)
        if self.loss == "ls":
            r = self.y - z
            value = (r**2).sum() / (2 * n)
        else:
            top = z.max(1, keepdims=True)
            p = np.exp(z - top)
            total = p.sum(1, keepdims=True)
            r = self.y - p / total
            value = float((np.log(total) + top - (z * self.y).sum(1, keepdims=True)).mean())
        # Scaled until every feature's correlation is at most λ.
        limit = lam * n / np.linalg.norm(self.columns @ r, axis=1).max()
        if self.loss == "ls":
            s = min(max((r * self.y).sum() / (r**2).sum(), -limit), limit)
            dual = (s * (r * self.y).sum() - 0.5 * s * s * (r**2).sum()) / n
        else:
            mixed = self.y - min(1.0, limit) * r
            dual = -(mixed * np.log(np.maximum(mixed, 1e-300))).sum() / n
        return float(value + lam * norms.sum() - dual) / self.null, len(active)


# ---- solvers: each gives coefficients for one λ, or for several; and how long it took


def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return answer, time.perf_counter() - wall, time.process_time() - cpu


class Celer:
    name, losses, gaps = "celer", ("ls",), True

    def __init__(self):
        from celer.homotopy import mtl_path

        self.path = mtl_path

    def solve(self, problem, lambdas, tolerance):
        alphas = np.array(lambdas)
        _, w, _ = self.path(problem.x, problem.y, alphas=alphas, tol=tolerance, max_iter=500, max_epochs=10**6, prune=True)
        return [w[..., i].T for i in range(len(lambdas))]


class ScikitLearn:
    name, losses, gaps = "scikit-learn", ("ls",), True

    def __init__(self):
        from sklearn.linear_model import MultiTaskLasso

        self.model = MultiTaskLasso

    def solve(self, problem, lambdas, tolerance):
        model = self.model(fit_intercept=False, tol=tolerance, max_iter=10**6, copy_X=False, warm_start=True)
        return [model.set_params(alpha=lam).fit(problem.x, problem.y).coef_.T.copy() for lam in lambdas]


class Skglm:
    name, losses, gaps = "skglm", ("ls",), False
    tolerances = (3e-2, 1e-2, 3e-3, 1e-3, 1e-4)

    def __init__(self):
        from skglm import MultiTaskLasso

        self.model = MultiTaskLasso

    def solve(self, problem, lambdas, tolerance):
        model = self.model(fit_intercept=False, max_iter=500, max_epochs=10**6, warm_start=True)
        answers = []
        for lam in lambdas:
            model.alpha, model.tol = lam, tolerance * lam
            answers.append(model.fit(problem.x, problem.y).coef_.T.copy())
        return answers


class Adelie:
    name, losses, gaps = "adelie", ("ls", "mn"), False
    tolerances = (1e-7, 1e-9, 1e-11, 1e-13)

    def __init__(self):
        import adelie

        self.adelie = adelie

    def solve(self, problem, lambdas, tolerance):
        # A single λ is approached in ten steps, which is how it is meant to be used, and faster. Its loss is ours over C.
        steps = list(lambdas) if len(lambdas) > 1 else list(np.geomspace(problem.largest, lambdas[0], 11)[1:])
        outputs = problem.y.shape[1]
        of = self.adelie.glm.multigaussian if problem.loss == "ls" else self.adelie.glm.multinomial
        state = self.adelie.grpnet(
            problem.x, of(np.ascontiguousarray(problem.y)), alpha=1, penalty=np.ones(problem.x.shape[1]),
            lmda_path=np.array(steps) / outputs, intercept=False, tol=tolerance, irls_tol=tolerance, early_exit=False,
            adev_tol=1.0, n_threads=int(THREADS), progress_bar=False, screen_rule="pivot",
        )
        found = [np.asarray(state.betas[i].todense()).reshape(-1, outputs) for i in range(state.betas.shape[0])]
        return found if len(lambdas) > 1 else found[-1:]


class Ours:
    losses, gaps = ("ls", "mn"), True

    def __init__(self, command, dtype):
        self.name, self.command, self.dtype = f"tilewright {dtype}", command, dtype
        self.folder, self.process = None, None

    def open(self, folder):
        if self.folder != folder:
            self.close()
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            environment = {**os.environ, "RAYON_NUM_THREADS": THREADS}
            self.process = subprocess.Popen([self.command, folder, self.dtype], env=environment, **pipes)
            self.folder = folder
            self.process.stdout.readline()  # ready

    def run(self, problem, lambdas, tolerance):
        self.open(problem.folder)
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            request = {"lambdas": list(lambdas), "gap": tolerance, "out": file.name}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            if not line:
                sys.exit("the Rust side has ended")
            answer = json.loads(line)
            d, outputs = problem.columns.shape[0], problem.y.shape[1]
            found = []
            for _ in lambdas:
                (rows,) = np.fromfile(file, np.int64, 1)
                at, values = np.fromfile(file, np.int64, rows), np.fromfile(file, np.float64, rows * outputs)
                w = np.zeros((d, outputs))
                w[at] = values.reshape(rows, outputs)
                found.append(w)
        return found, answer["wall_s"], answer["cpu_s"]

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process, self.folder = None, None


def run(solver, problem, lambdas, tolerance):
    if isinstance(solver, Ours):
        return solver.run(problem, lambdas, tolerance)
    return timed(lambda: solver.solve(problem, lambdas, tolerance))


def calibrate(solver, problem, lambdas, gap, limit):
    """The loosest of the solver's tolerances at which every answer is certified, or how far it got."""
    tolerances = [gap * share for share in (1.0, 0.5, 0.2, 0.05)] if solver.gaps else solver.tolerances
    best = None
    for tolerance in tolerances:
        answers, wall, cpu = run(solver, problem, lambdas, tolerance)
        pick = sorted(set(np.linspace(0, len(answers) - 1, min(12, len(answers))).astype(int)))
        worst = max(problem.gap(answers[i], lambdas[i])[0] for i in pick) if len(answers) == len(lambdas) else np.inf
        best = {"tolerance": tolerance, "gap": worst, "wall": [wall], "cpu": [cpu], "reached": worst <= gap}
        if worst <= gap or wall > limit:
            break
    return best


def contest(solvers, problem, lambdas, gap, rounds, limit):
    entries = {s.name: calibrate(s, problem, lambdas, gap, limit) for s in solvers if problem.loss in s.losses}
    for _ in range(rounds - 1):
        for solver in solvers:
            entry = entries.get(solver.name)
            if entry and entry["reached"] and entry["wall"][0] <= limit:
                _, wall, cpu = run(solver, problem, lambdas, entry["tolerance"])
                entry["wall"].append(wall)
                entry["cpu"].append(cpu)
    return entries


def report(title, entries, out):
    print(f"\n{title}\n\n| solver | gap reached | wall s | CPU s | CPU, multiple of ours |\n|---|---|---|---|---|")
    ours = entries.get("tilewright f64")
    base = statistics.median(ours["cpu"]) if ours else float("nan")
    for name, e in entries.items():
        wall, cpu = statistics.median(e["wall"]), statistics.median(e["cpu"])
        note = "" if e["reached"] else " (not what was asked)"
        print(f"| {name} | {e['gap']:.1e}{note} | {wall:.2f} | {cpu:.2f} | {cpu / base:.1f} |", flush=True)
    out.append({"title": title, "entries": entries})


def build():
    command = ["cargo", "build", "--release", "-p", "tilewright-benches", "--example", "grouplasso_peer"]
    found = subprocess.run([*command, "--message-format=json"], check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    return next(line["executable"] for line in reversed(lines) if line.get("executable"))


def warm_up(solvers):
    """Compiles what compiles at first use."""
    rng = np.random.default_rng(0)
    tiny = Problem.__new__(Problem)
    tiny.columns = rng.standard_normal((300, 100))
    tiny.x = tiny.columns.T
    for loss in ("ls", "mn"):
        tiny.loss, tiny.y = loss, rng.standard_normal((100, 5)) if loss == "ls" else np.eye(5)[np.arange(100) % 5]
        tiny.largest = float(np.linalg.norm(tiny.columns @ (tiny.y - tiny.y.mean(0)), axis=1).max() / 100)
        for solver in solvers:
            if not isinstance(solver, Ours) and loss in solver.losses:
                solver.solve(tiny, [tiny.largest / 2, tiny.largest / 4], 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", default=os.path.join(tempfile.gettempdir(), "tilewright-grouplasso"))
    parser.add_argument("--only", nargs="*", help="problems, of " + ", ".join(PROBLEMS))
    parser.add_argument("--kind", choices=["single", "path"], help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a peer is not pressed further")
    parser.add_argument("--json", help="where to write every time measured")
    arguments = parser.parse_args()
    executable = build()
    solvers = [Ours(executable, "f64"), Ours(executable, "f32")]
    for peer in (Celer, ScikitLearn, Skglm, Adelie):
        try:
            solvers.append(peer())
        except ImportError as error:
            print(f"left out: {peer.name} ({error})")
    warm_up(solvers)
    out = []
    wanted = lambda name: not arguments.only or name in arguments.only  # noqa: E731
    singles = [] if arguments.kind == "path" else [s for s in SINGLES if wanted(s[0])]
    for name, fraction, gaps in singles:
        problem = Problem(arguments.problems, name)
        for gap in gaps:
            entries = contest(solvers, problem, [problem.largest / fraction], gap, arguments.rounds, arguments.limit)
            report(f"{name}, λmax/{fraction}, gap {gap:g}", entries, out)
    for name in [] if arguments.kind == "single" else [p for p in PATHS if wanted(p)]:
        problem = Problem(arguments.problems, name)
        lambdas = list(np.geomspace(problem.largest, problem.largest / 10, POINTS))
        entries = contest(solvers, problem, lambdas, 1e-6, arguments.rounds, arguments.limit)
        report(f"{name}, path of {POINTS} to λmax/10, every point to 1e-6", entries, out)
    for solver in solvers[:2]:
        solver.close()
    if arguments.json:
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(arguments.json) or ".", delete=False) as file:
            json.dump(out, file, indent=1)
        os.replace(file.name, arguments.json)


if __name__ == "__main__":
    main()
