"""A training step of conr beside the same step of PyTorch, in turns on the same cores.

    python tests/witness/step_torch.py build/conr --model resnet50 --size 224 --batch 16 [--threads 2] [--rounds 3]

Needs torch and torchvision; says so and exits 0 without them.  Forward, L1 loss, backward, SGD with momentum; float32.  PyTorch runs in both memory
layouts, eager; each run is a process of its own, the best of all rounds counts, the last line is one JSON object.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time

if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
    print("skipped: PyTorch with torchvision is not installed for", sys.executable)
    sys.exit(0)


def torch_run(arguments, channels_last):
    import torch
    import torchvision

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    net = getattr(torchvision.models, arguments.model)(num_classes=1)
    net.train()
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    labels = torch.randn(arguments.batch, 1)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    best = float("inf")
    for _ in range(1 + arguments.repeat):
        begin = time.perf_counter()
        optimiser.zero_grad()
        loss = (net(images) - labels).abs().mean()
        loss.backward()
        optimiser.step()
        best = min(best, time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"version": torch.__version__, "seconds": best, "peak_bytes": peak}))


def child(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conr", help="the program, build/conr")
    parser.add_argument("--model", default="resnet50", choices=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layout", choices=["first", "last"], help=argparse.SUPPRESS)  # of a child
    arguments = parser.parse_args()
    if arguments.layout:
        torch_run(arguments, arguments.layout == "last")
        return
    options = ["--model", arguments.model, "--size", str(arguments.size), "--batch", str(arguments.batch)]
    options += ["--threads", str(arguments.threads), "--repeat", str(arguments.repeat)]
    own, first, last = [], [], []
    for _ in range(arguments.rounds):
        own.append(child([arguments.conr, "bench", "step", *options, "--json"]))
        for layout, runs in (("first", first), ("last", last)):
            runs.append(child([sys.executable, __file__, arguments.conr, *options, "--layout", layout]))
    images = [arguments.batch / min(run["seconds"] for run in runs) for runs in (own, first, last)]
    gemm = max(run["gemm_gflops"] for run in own)
    flops = own[0]["gflops"] * own[0]["seconds"] / arguments.batch
    memory = [min(run["peak_bytes"] for run in runs) for runs in (own, first, last)]
    print(f"{arguments.model}, {arguments.size} x {arguments.size}, batch {arguments.batch}, {arguments.threads} threads")
    for name, rate, peak in zip(("conr", f"PyTorch {first[0]['version']}", "  channels-last"), images, memory):
        print(f"{name:24} {rate:8.2f} images/s {peak / 1e6:8.0f} MB")
    print(f"ratio {images[0] / max(images[1:]):.2f}, memory {memory[0] / min(memory[1:]):.2f}, "
          f"{100 * flops * images[0] / gemm:.0f} % of the GEMM rate ({gemm:.0f} GFLOP/s)")
    print(json.dumps({"ratio": images[0] / max(images[1:]), "memory_ratio": memory[0] / min(memory[1:]),
                      "images_per_second": images[0], "gemm_share": flops * images[0] / gemm}))


if __name__ == "__main__":
    main()
