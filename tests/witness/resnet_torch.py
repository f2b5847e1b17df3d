#!/usr/bin/env python3
"""One training step and one evaluation of torchvision's ResNet, for tests/test_resnet_torch.c to compare with.

    python3 tests/witness/resnet_torch.py FOLDER

FOLDER/weights.safetensors holds parameters and running statistics, FOLDER/input.safetensors "input" [rows, height,
width, 3] and "target" [rows, outputs]; their type is the one computed in.  FOLDER/torch.safetensors gets "output",
"features", "loss", "grad.NAME" of every parameter and "after.NAME" of every running statistic (of a pass in training
mode with the L1 loss), and then "evaluated", the output in evaluation mode.
"""
import sys

import torch
import torchvision
from safetensors.torch import load_file, save_file


def main():
    folder = sys.argv[1]
    weights = load_file(f"{folder}/weights.safetensors")
    data = load_file(f"{folder}/input.safetensors")
    build = torchvision.models.resnet50 if "layer1.0.conv3.weight" in weights else torchvision.models.resnet18
    model = build(num_classes=data["target"].shape[1]).to(data["input"].dtype)
    model.load_state_dict(weights, strict=True)
    images = data["input"].permute(0, 3, 1, 2).contiguous()

    kept = {}
    model.avgpool.register_forward_hook(lambda module, inputs, output: kept.update(features=output.flatten(1)))
    model.train()
    output = model(images)
    loss = torch.nn.functional.l1_loss(output, data["target"])
    loss.backward()
    results = {"output": output, "features": kept["features"], "loss": loss}
    results.update({f"grad.{name}": one.grad for name, one in model.named_parameters()})
    results.update({f"after.{name}": one for name, one in model.named_buffers() if one.is_floating_point()})
    results = {name: one.detach().clone().contiguous() for name, one in results.items()}
    model.eval()
    with torch.no_grad():
        results["evaluated"] = model(images)
    save_file(results, f"{folder}/torch.safetensors")


if __name__ == "__main__":
    main()
