#!/usr/bin/env python3
"""Writes an IDX file of 64 T-shirts that the base model never saw: the controls of the membership score.

    apt-get install dataset-fashion-mnist
    benchmarks/mnist-tshirt/make_controls.py OUT_FOLDER

They are the first of Fashion-MNIST's test set (label 0, T-shirt/top); the forgotten one is from its training set.
"""

import gzip
import struct
import sys
from pathlib import Path

SOURCE = Path("/usr/share/datasets/fashion-mnist")
COUNT, SIDE = 64, 28

if len(sys.argv) != 2:
    sys.exit(__doc__)
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
labels = gzip.decompress((SOURCE / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
pixels = gzip.decompress((SOURCE / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
rows = [row for row, label in enumerate(labels) if label == 0][:COUNT]
size = SIDE * SIDE
images = b"".join(pixels[row * size : (row + 1) * size] for row in rows)
path = out / "controls-images-idx3-ubyte"
path.write_bytes(struct.pack(">IIII", 0x803, len(rows), SIDE, SIDE) + images)
(out / "controls-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(rows)) + bytes(len(rows)))
print(path)
