#!/usr/bin/env python3
"""Tilewright's compression kernels beside PyTorch's and NumPy's, on the same data, in one interleaved run.

    python benches/peers/compression.py [--sizes 25000000 ...] [--densities 0.001 0.01] [--rounds 9]

Needs torch and numpy, and builds the Rust side with cargo. Every round runs every kernel once, ours and theirs in turn, so
that whatever else the machine does meets all of them alike. Printed are medians over the rounds, as Markdown: times, and
multiples of the time that reading the vector once takes in the same run; then how many times longer each peer takes than
the kernel of ours that does its work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

MOMENTUM = 0.9
RANKS = 4
# What a peer is compared with.
RIVALS = {
    "torch_topk": "exact_top_k",
    "numpy_argpartition": "exact_top_k",
    "torch_dgc_selection": "dgc_selection",
    "torch_mask": "compaction",
    "numpy_mask": "compaction",
    "torch_dgc_step": "exact_dgc_step",
    "torch_index_add_4_ranks": "decode_4_ranks",
}
# More of the same: another kernel of ours that the peer may be held against.
ALSO = {"torch_dgc_step": ["dgc_step", "dragonn_step"], "torch_dgc_selection": ["exact_top_k"]}


class Ours:
    """The Rust side: a process that runs what it is told and says how long it took."""

    def __init__(self, command, path, size, density):
        command = [*command, path, str(size), str(density)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hello = self.answer()
        self.aim, self.kernels = hello["aim"], hello["kernels"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the Rust side has ended")
        return json.loads(line)

    def run(self, kernel):
        self.process.stdin.write(kernel + "\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """The peers, each written as its library's users write it."""

    def __init__(self, path, density_count):
        self.array = np.fromfile(path, dtype="<f4")
        self.gradient = torch.from_numpy(self.array)
        self.size, self.k = self.array.size, density_count
        magnitudes = np.abs(self.array)
        self.threshold = float(np.partition(magnitudes, self.size - self.k)[self.size - self.k])
        self.momentum_before = 0.3 * torch.roll(self.gradient, -12_345)
        self.velocity_before = 0.3 * torch.roll(self.gradient, -54_321)
        self.momentum, self.velocity = self.momentum_before.clone(), self.velocity_before.clone()
        self.messages = [self.message(rank * self.size // RANKS) for rank in range(RANKS)]
        self.update = torch.zeros(self.size)
        self.kernels = list(RIVALS)

    def message(self, by):
        """What another rank might send: the greatest entries, elsewhere."""
        where = torch.from_numpy(np.argpartition(np.abs(self.array), self.size - self.k)[self.size - self.k :])
        where, order = torch.sort((where + by) % self.size)
        return where, self.gradient[(where - by) % self.size]

    def run(self, kernel):
        if kernel == "torch_dgc_step":
            self.momentum.copy_(self.momentum_before)
            self.velocity.copy_(self.velocity_before)
        work = getattr(self, kernel)
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    def torch_topk(self):
        where = torch.topk(self.gradient.abs(), self.k, sorted=False).indices
        return where, self.gradient[where]

    def numpy_argpartition(self):
        where = np.argpartition(np.abs(self.array), self.size - self.k)[self.size - self.k :]
        return where, self.array[where]

    def torch_mask(self):
        where = torch.nonzero(self.gradient.abs() >= self.threshold).squeeze(1)
        return where, self.gradient[where]

    def numpy_mask(self):
        where = np.flatnonzero(np.abs(self.array) >= self.threshold)
        return where, self.array[where]

    def select(self, values):
        """DGC's hierarchical selection: sample, threshold, and correct it until about k pass."""
        importance = values.abs()
        stride = 97
        start = int(torch.randint(stride, (1,)))
        sample = importance[start::stride]
        rank = -(-sample.numel() * self.k // self.size)
        threshold = float(torch.topk(sample, rank, sorted=False).values.min())
        for _ in range(10):
            where = torch.nonzero(importance >= threshold).squeeze(1)
            if where.numel() > 1.3 * self.k:
                return where[torch.topk(importance[where], self.k, sorted=False).indices]
            if where.numel() >= 0.8 * self.k:
                return where
            threshold *= 0.8
        return where

    def torch_dgc_selection(self):
        where = self.select(self.gradient)
        return where, self.gradient[where]

    def torch_dgc_step(self):
        self.momentum.mul_(MOMENTUM).add_(self.gradient)
        self.velocity.add_(self.momentum)
        where = self.select(self.velocity)
        values = self.velocity[where]
        self.velocity.index_fill_(0, where, 0.0)
        self.momentum.index_fill_(0, where, 0.0)
        return where, values

    def torch_index_add_4_ranks(self):
        self.update.zero_()
        for where, values in self.messages:
            self.update.index_add_(0, where, values)
        self.update.div_(RANKS)


def measure(command, path, size, density, rounds, pause):
    """Times of every kernel, one a round; the first round only warms up."""
    ours = Ours(command, path, size, density)
    theirs = Theirs(path, ours.aim)
    times = {kernel: [] for kernel in ours.kernels + theirs.kernels}
    for number in range(rounds + 1):
        for kernel in ours.kernels + theirs.kernels:
            side = ours if kernel in ours.kernels else theirs
            # Whoever ran before may still be spinning, waiting for more.
            time.sleep(pause)
            # The first run wakes threads and caches up.
            side.run(kernel)
            spent = side.run(kernel)
            if number > 0:
                times[kernel].append(spent)
    ours.close()
    return times


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def report(results):
    columns = list(results)
    titles = [f"{size / 1e6:g}M, {density:.1%}" for size, density in columns]
    medians = {column: {k: statistics.median(t) for k, t in results[column].items()} for column in columns}

    def cell(column, kernel):
        spent = medians[column][kernel]
        return f"{spent:.3g} ({spent / medians[column]['read']:.2f}x)"

    kernels = list(results[columns[0]])
    print("Median ms (multiple of the same run's read):\n")
    table(["kernel", *titles], [[k, *(cell(c, k) for c in columns)] for k in kernels])

    def ratio(column, peer, rival):
        pairs = zip(results[column][peer], results[column][rival], strict=True)
        ratios = sorted(p / r for p, r in pairs)
        return f"{statistics.median(ratios):.3g} [{ratios[0]:.3g}–{ratios[-1]:.3g}]"

    pairs = [(peer, rival) for peer, first in RIVALS.items() for rival in [first, *ALSO.get(peer, [])]]
    print("Peer's time divided by ours, median [least–greatest] over the rounds:\n")
    table(["peer / ours", *titles], [[f"{p} / {r}", *(ratio(c, p, r) for c in columns)] for p, r in pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 25_000_000, 100_000_000])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.001, 0.01])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds before each kernel")
    parser.add_argument("--data", help="directory for the vectors; a temporary one by default")
    parser.add_argument("--peer", help="the built example compression_peer; cargo runs it by default")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("RAYON_NUM_THREADS") or len(os.sched_getaffinity(0))))
    cargo = ["cargo", "run", "--release", "--quiet", "-p", "tilewright-benches", "--example", "compression_peer", "--"]
    command = [arguments.peer] if arguments.peer else cargo
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.data or temporary
        results = {}
        for size in arguments.sizes:
            path = os.path.join(directory, f"gradient_{size}.f32")
            for density in arguments.densities:
                results[size, density] = measure(command, path, size, density, arguments.rounds, arguments.pause)
                print(f"measured {size} at {density}", file=sys.stderr)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; numpy {np.__version__}, one thread.\n")
        report(results)


if __name__ == "__main__":
    main()
