#!/usr/bin/env python3
"""ConR as a PyTorch user would write it (dense, autograd, from the definitions in loss/conr.h), beside conr bench loss.

    python3 tests/witness/conr_torch.py [--conr build/conr] [--rows 8192] [--dim 512] [--threads 2]

Prints the time of forward + gradient of both in one run, their ratio, and the memory PyTorch took.  Needs PyTorch; says
so and exits 0 without it.  Not part of the tests: several gigabytes.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    print("skipped: PyTorch is not installed for", sys.executable)
    sys.exit(0)


def conr(features, labels, predictions, w, t, e):
    q = torch.nn.functional.normalize(features, dim=1)
    s = q @ q.T / t
    d = (labels[:, None] - labels[None, :]).abs()
    dp = (predictions[:, None] - predictions[None, :]).abs()
    eye = torch.eye(len(labels), dtype=torch.bool)
    positive = (d <= w) & ~eye
    negative = (d > w) & (dp <= w)
    exp = torch.exp(s)
    denominator = (exp * positive).sum(1) + (torch.exp(e * d) * exp * negative).sum(1)
    count = positive.sum(1)
    active = (count > 0) & negative.any(1)
    row = torch.log(denominator[active]) - (s * positive).sum(1)[active] / count[active]
    return row.sum() / len(labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--conr", default="build/conr")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)

    command = [a.conr, "bench", "loss", "--rows", str(a.rows), "--dim", str(a.dim), "--threads", str(a.threads),
               "--repeat", str(a.repeat), "--json"]
    ours = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]

    labels = torch.randint(10, 80, (a.rows,)).float()
    predictions = labels + 8.8 * torch.randn(a.rows)
    features = torch.randn(a.rows, a.dim, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = float("inf")
    for _ in range(a.repeat):
        features.grad = None
        began = time.perf_counter()
        conr(features, labels, predictions, 1.0, 0.07, 0.01).backward()
        best = min(best, time.perf_counter() - began)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    print(f"N = {a.rows}, D = {a.dim}, {a.threads} threads, forward + gradient, best of {a.repeat}")
    print(f"  PyTorch {torch.__version__:<12} {best:8.3f} s   extra memory {extra / 1e6:8.0f} MB")
    for row in ours:
        print(f"  conr, {row['path']:<14} {row['seconds']:8.3f} s   extra memory {row['extra_bytes'] / 1e6:8.0f} MB"
              f"   {best / row['seconds']:6.1f} times faster")


if __name__ == "__main__":
    main()
