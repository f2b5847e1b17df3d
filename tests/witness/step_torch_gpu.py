#!/usr/bin/env python3
"""A training step of PyTorch on a GPU, for comparison with conr bench step --device cuda.

    python3 tests/witness/step_torch_gpu.py --model resnet50 --size 224 --batch 256 [--precision bf16|tf32] [--eager]

The same work: a batch of bytes travels to the GPU and is normalised there, forward, L1 loss, backward, SGD with
momentum; channels-last, bf16 by autocast; the best of --repeat steps, the host waiting for each.  One JSON object a
line: first eager, then torch.compile, in case that does not end in the caller's time.  Needs PyTorch with CUDA; says so
and exits 0 without it.  The networks are written out here: torchvision is not needed.
"""

import argparse
import json
import sys
import time

try:
    import torch
    from torch import nn
except ImportError:
    print("skipped: PyTorch is not installed for", sys.executable)
    sys.exit(0)


def convolution(channels_in, channels_out, kernel, stride=1):
    return [nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(channels_out)]


class Block(nn.Module):
    """conv3 conv3 (ResNet-18), or conv1 conv3 conv1 of four times the width (ResNet-50), around a shortcut."""

    def __init__(self, channels_in, width, stride, bottleneck):
        super().__init__()
        out = 4 * width if bottleneck else width
        relu = [nn.ReLU(inplace=True)]
        if bottleneck:
            layers = convolution(channels_in, width, 1) + relu + convolution(width, width, 3, stride) + relu
            layers += convolution(width, out, 1)
        else:
            layers = convolution(channels_in, width, 3, stride) + relu + convolution(width, out, 3)
        self.body = nn.Sequential(*layers)
        same = stride == 1 and channels_in == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(channels_in, out, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


def resnet(name):
    bottleneck, depths = {"resnet18": (False, (2, 2, 2, 2)), "resnet50": (True, (3, 4, 6, 3))}[name]
    layers = convolution(3, 64, 7, 2) + [nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        for index in range(depth):
            width = 64 << stage
            layers.append(Block(channels, width, 2 if stage > 0 and index == 0 else 1, bottleneck))
            channels = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


def measure(arguments, compiled):
    torch.manual_seed(0)
    device = torch.device("cuda")
    net = resnet(arguments.model).to(device, memory_format=torch.channels_last).train()
    forward = torch.compile(net) if compiled else net
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).pin_memory()
    labels = torch.rand(arguments.batch, 1).pin_memory()

    def step():
        optimiser.zero_grad(set_to_none=True)
        images = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1
        targets = labels.to(device, non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=arguments.precision == "bf16"):
            outputs = forward(images)
        nn.functional.l1_loss(outputs.float(), targets).backward()
        optimiser.step()

    best = float("inf")
    for index in range(5 + arguments.repeat):
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if index >= 5:
            best = min(best, time.perf_counter() - begin)
    result = {"mode": "compile" if compiled else "eager", "model": arguments.model, "size": arguments.size}
    result.update(batch=arguments.batch, precision=arguments.precision, version=torch.__version__)
    result.update(device=torch.cuda.get_device_name(), seconds=best, images_per_second=arguments.batch / best)
    print(json.dumps(result | {"peak_bytes": torch.cuda.max_memory_allocated()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", choices=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "tf32", "f32"])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        return
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.precision != "f32"
    measure(arguments, False)
    if not arguments.eager:
        try:
            measure(arguments, True)
        except Exception as error:  # a machine without a compiler, say: the eager figure stands
            print("torch.compile:", error, file=sys.stderr)


if __name__ == "__main__":
    main()
