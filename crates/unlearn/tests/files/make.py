"""Makes the small files beside it that Rust cannot write: Parquet files with image columns, and JPEG variants.

    python make.py        # needs numpy, pillow and pyarrow

Row i of each Parquet file is the gray 6 x 5 image with pixel values (i * 7 + 3 * y + x) % 256.
"""

import io
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

here = pathlib.Path(__file__).parent


def pixels(row):
    y, x = np.mgrid[0:5, 0:6]
    return ((row * 7 + 3 * y + x) % 256).astype(np.uint8)


def png(row):
    out = io.BytesIO()
    Image.fromarray(pixels(row)).save(out, "PNG")
    return out.getvalue()


rows = 50
images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(rows)]
hugging_face = pa.table({
    "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    "label": pa.array([i % 5 for i in range(rows)], pa.int64()),
})
pq.write_table(hugging_face, here / "hugging_face.parquet", row_group_size=20, data_page_size=512)
pq.write_table(hugging_face, here / "plain_zstd.parquet", compression="zstd", use_dictionary=False, data_page_size=512)
binary = pa.table({
    "caption": pa.array([f"number {i}" for i in range(rows)]),
    "picture": pa.array([png(i) for i in range(rows)], pa.binary()),
    "labels": pa.array([None if i == 3 else i for i in range(rows)], pa.int32()),
})
pq.write_table(binary, here / "binary.parquet", compression="gzip")
pq.write_table(pa.table({
    "image": pa.array([{"bytes": None, "path": "somewhere.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
}), here / "paths_only.parquet")
pq.write_table(pa.table({"text": ["a", "b"], "number": [1, 2]}), here / "no_images.parquet")

# Smooth, so that JPEG changes little.
y, x = np.mgrid[0:16, 0:24]
smooth = np.stack([4 * x + 60, 6 * y + 90, 180 - 3 * x - 2 * y], axis=-1).astype(np.uint8)
picture = Image.fromarray(smooth)
picture.save(here / "smooth.png")
picture.convert("CMYK").save(here / "cmyk.jpg", quality=95)
picture.save(here / "progressive.jpg", quality=95, subsampling=0, progressive=True)
exif = Image.Exif()
exif[0x0112] = 6  # turn by 90 degrees clockwise to show
picture.save(here / "rotated.jpg", quality=95, subsampling=0, exif=exif)
