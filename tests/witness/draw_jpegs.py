#!/usr/bin/env python3
"""Draws JPEGs whose brightness is their label, and the table for conr import.

    python3 tests/witness/draw_jpegs.py FOLDER [--count 2048] [--size 256]

FOLDER gets 0.jpg, 1.jpg ... and labels.csv (path,age,split).  Needs NumPy and Pillow; says so and exits 0 without them.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy
    from PIL import Image
except ImportError:
    print("skipped: no NumPy and Pillow for", sys.executable)
    sys.exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    shade = numpy.linspace(0, 60, arguments.size)

    def draw(index):
        random = numpy.random.default_rng(index)
        label = 1 + index % 90
        pixels = label + shade[:, None, None] + shade[None, :, None] * random.uniform(0, 1, 3)
        pixels = pixels + random.normal(0, 6, (arguments.size, arguments.size, 1))
        image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
        image.save(f"{arguments.folder}/{index}.jpg", quality=90)
        return f"{index}.jpg,{label},{'val' if index % 16 == 0 else 'train'}\n"

    with ThreadPoolExecutor(8) as pool, open(f"{arguments.folder}/labels.csv", "w") as table:
        table.write("path,age,split\n")
        table.writelines(pool.map(draw, range(arguments.count)))


if __name__ == "__main__":
    main()
