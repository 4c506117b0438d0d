"""Makes the small files beside it that Rust cannot write: Parquet files with image columns, and JPEG variants.

    python make.py        # needs numpy, pillow and pyarrow

Row i of each Parquet file is the gray 6 x 5 image with pixel values (i * 7 + 3 * y + x) % 256.
"""

import base64
import io
import json
import pathlib
import pickle
import struct
import zlib

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

# What Pillow makes of transparency, palettes and 16 bits: expected.json holds the bytes of convert("RGB") and
# convert("L") for each of these pictures of 8 x 6 pixels, and whether any pixel is transparent.
y, x = np.mgrid[0:6, 0:8]
color = np.stack([x * 30, y * 45, (x * y * 7) % 256], axis=-1).astype(np.uint8)
alpha = np.select([x < 3, x < 6], [0, 128], 255).astype(np.uint8)
rgba, gray_alpha = np.dstack([color, alpha]), np.dstack([color[..., 0], alpha])
palette = Image.fromarray(color).quantize(16)
gray = Image.fromarray(color[..., 0])


def png16(samples, color_type):
    """Pillow writes no 16-bit color."""
    chunk = lambda kind, content: struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def premultiplied(content):
    """The file's tag ExtraSamples says that the colors are multiplied by alpha already (1), not that they are not (2)."""
    return content.replace(struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 1, 0))


def small_frame(**options):
    """A frame of 4 x 3 pixels at (2, 1) of 8 x 6."""
    content = bytearray(encoded(palette.crop((2, 1, 6, 4)), "GIF", **options))
    content[6:10] = struct.pack("<HH", 8, 6)
    at = content.index(struct.pack("<BHHHH", 0x2C, 0, 0, 4, 3))
    content[at + 1 : at + 5] = struct.pack("<HH", 2, 1)
    return bytes(content)


deep = np.random.default_rng(0).integers(0, 65536, (6, 8, 4))
pictures = {
    "rgba.png": encoded(Image.fromarray(rgba), "PNG"),
    "opaque_rgba.png": encoded(Image.fromarray(np.dstack([color, np.full_like(alpha, 255)])), "PNG"),
    "gray_alpha.png": encoded(Image.fromarray(gray_alpha), "PNG"),
    "palette.png": encoded(palette, "PNG"),
    "palette_one_transparent.png": encoded(palette, "PNG", transparency=3),
    "palette_half_transparent.png": encoded(palette, "PNG", transparency=bytes(range(0, 160, 10))),
    "gray_one_transparent.png": encoded(gray, "PNG", transparency=60),
    "rgb_one_transparent.png": encoded(Image.fromarray(color), "PNG", transparency=(60, 45, 14)),
    "rgba16.png": png16(deep, 6),
    "rgb16.png": png16(deep[..., :3], 2),
    "gray_alpha16.png": png16(deep[..., :2], 4),
    "animated.png": encoded(Image.fromarray(rgba), "PNG", save_all=True, append_images=[Image.fromarray(rgba[::-1])]),
    "palette.gif": encoded(palette, "GIF"),
    "transparent.gif": encoded(palette, "GIF", transparency=3),
    "animated.gif": encoded(palette, "GIF", save_all=True, append_images=[Image.fromarray(color[::-1]).quantize(16)]),
    "lossless.webp": encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
    "lossy.webp": encoded(Image.fromarray(rgba), "WEBP", quality=80),
    "animated.webp": encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True, save_all=True,
                             append_images=[Image.fromarray(rgba[::-1])]),
    "rgba.tif": encoded(Image.fromarray(rgba), "TIFF", compression="tiff_lzw"),
    "cmyk.tif": encoded(Image.fromarray(color).convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
    "premultiplied.tif": premultiplied(encoded(Image.fromarray(rgba), "TIFF")),
    "big.tif": encoded(Image.fromarray(color), "TIFF", big_tiff=True),
    "small_frame.gif": small_frame(),
    "small_transparent_frame.gif": small_frame(transparency=3),
    "palette.bmp": encoded(palette, "BMP"),
}
(here / "pillow").mkdir(exist_ok=True)
expected = {}
for name, content in pictures.items():
    (here / "pillow" / name).write_bytes(content)
    image = Image.open(io.BytesIO(content))
    with_alpha = np.asarray(image.convert("RGBA"))[..., 3]
    expected[name] = {
        "rgb": image.convert("RGB").tobytes().hex(),
        "l": image.convert("L").tobytes().hex(),
        "transparent": bool((with_alpha < 255).any()),
    }
(here / "pillow" / "expected.json").write_text(json.dumps(expected) + "\n")

# Whole files of kinds that are not read.
(here / "unread").mkdir(exist_ok=True)
for name, content in {
    "palette.tif": encoded(palette, "TIFF"),
    "zstd.tif": encoded(Image.fromarray(color), "TIFF", compression="zstd"),
    "lzma.tif": encoded(Image.fromarray(color), "TIFF", compression="lzma"),
    "gray_alpha.tif": encoded(Image.fromarray(gray_alpha), "TIFF"),
}.items():
    (here / "unread" / name).write_bytes(content)

# Other codecs, labels and captions; ten rows are enough.
few = hugging_face.slice(0, 10)
for codec in ["brotli", "lz4", "snappy", "gzip", "none"]:
    pq.write_table(few, here / f"{codec}.parquet", compression=codec)
names = [["dog", "cat", "ant"][i % 3] for i in range(10)]
texts = pa.array([[f"one {i}", f"two {i}"] if i % 2 else [f"one {i}"] for i in range(10)], pa.list_(pa.string()))
words = few.set_column(1, "label", pa.array(names)).append_column("text", texts)
pq.write_table(words, here / "words.parquet")
features = {"info": {"features": {"image": {"_type": "Image"}, "animal": {"names": ["zebra", "yak"], "_type": "ClassLabel"}}}}
classes = few.set_column(1, "animal", pa.array([i % 2 for i in range(10)]))
pq.write_table(classes.replace_schema_metadata({"huggingface": json.dumps(features)}), here / "classes.parquet")

# Labels and columns of texts of other kinds.
def column(name, values, kind, base=few):
    table = base.drop_columns(["label"])
    return table.append_column(name, pa.array(values, kind))


for name, table in {
    "unsigned": column("label", [2**32 - 1 - i for i in range(10)], pa.uint32()),
    "huge_labels": column("label", [2**64 - 1 - i for i in range(10)], pa.uint64()),
    "float_labels": column("label", [None, float("nan")] + [float(i) for i in range(8)], pa.float64()),
    "score_labels": column("label", [i / 4 for i in range(10)], pa.float32()),
    "binary_labels": column("label", [names[i].encode() for i in range(10)], pa.binary()),
    "fine_labels": column("coarse_label", [i % 2 for i in range(10)], pa.int64(),
                          few.append_column("fine_label", pa.array([i % 5 for i in range(10)]))),
    "coarse_labels": column("coarse_label", [i % 2 for i in range(10)], pa.int64()),
    "number_names": column("label", [["1", "2", "cat"][i % 3] for i in range(10)], pa.string()),
    "padded_names": column("label", [["7", "07"][i % 2] for i in range(10)], pa.string()),
    "captions": few.append_column("map", pa.array([[("a key", f"text {i}")] for i in range(10)], pa.map_(pa.string(), pa.string())))
                   .append_column("struct", pa.array([{"en": f"text {i}"} for i in range(10)]))
                   .append_column("raw", pa.array([[b"\xff\xfe"]] * 10, pa.list_(pa.binary()))),
}.items():
    pq.write_table(table, here / f"{name}.parquet")
pq.write_table(pa.table({"image": [f"{i}.png" for i in range(4)], "label": [0, 1, 0, 1]}), here / "path_texts.parquet")
for name, column, values in [
    ("addresses", "url", [None] + [f"https://example.org/{i}.png" for i in range(3)]),
    ("base64", "image", [base64.b64encode(png(i)).decode() for i in range(4)]),
    ("sentences", "image", ["a cat", "a dog", "", "a cow"]),
]:
    pq.write_table(pa.table({column: pa.array(values, pa.string())}), here / f"{name}.parquet")

# Captions of an image folder, one of them missing and one of two.
pq.write_table(pa.table({
    "file_name": ["a.png", "./b/c.png", "b\\d.png", "cafe\u0301.png"],
    "width": [1, 2, 3, 4],
    "text": pa.array([["one"], ["two", "three"], ["four"], ["five"]], pa.list_(pa.string())),
}), here / "metadata.parquet")
pq.write_table(pa.table({"file_name": ["a.png"], "text": pa.array([None], pa.string())}), here / "no_text.parquet")

# A batch of CIFAR-10 as Python 3 pickles it: (row * 5 + place) % 7, red plane first.
batch = ((np.arange(2)[:, None] * 5 + np.arange(3072)) % 7).astype(np.uint8)
(here / "cifar_protocol_4").write_bytes(pickle.dumps({b"labels": [6, 8], b"data": batch}, protocol=4))
