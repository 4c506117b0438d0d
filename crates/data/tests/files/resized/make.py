"""Makes the pictures beside it, and in expected.json what diffusers' training scripts make of them.

    python make.py        # needs numpy and Pillow 13.0.0

The scripts convert an image, then apply torchvision's `transforms.Resize(N, interpolation)` and `transforms.CenterCrop(N)`
to it, which for an image of Pillow are its `resize` and `crop` with the sizes of `resize` and `center_crop` below
(torchvision, transforms/functional.py). Each entry holds the size and the SHA-256 of the bytes.
"""

import hashlib
import json
import pathlib

import numpy as np
import PIL
from PIL import Image

assert PIL.__version__ == "13.0.0", PIL.__version__
here = pathlib.Path(__file__).parent
FILTERS = {name: Image.Resampling[name.upper()] for name in ["bilinear", "bicubic", "lanczos"]}


def resize(image, side, interpolation):
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_short, new_long = side, int(side * long / short)
    size = (new_short, new_long) if width <= height else (new_long, new_short)
    return image if size == image.size else image.resize(size, interpolation)


def center_crop(image, side):
    width, height = image.size
    left, top = int(round((width - side) / 2.0)), int(round((height - side) / 2.0))
    return image.crop((left, top, left + side, top + side))


def picture(seed, height, width, channels):
    """Waves with edges of black and white, at which cubic weights overshoot, and some noise."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for channel in range(channels):
        plane = 128 + 120 * np.sin(9 * x + channel) * np.cos(7 * y - channel)
        plane += 40 * generator.integers(-1, 2, (height, width))
        plane[(np.abs(np.sin(23 * x * y + channel)) < 0.2)] = 255 * (channel % 2)
        planes.append(plane.clip(0, 255))
    if channels in (2, 4):
        # Clear, opaque and in between.
        planes[-1] = np.select([x + y < 0.5, x + y > 1.2], [0, 255], planes[-1])
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8).squeeze())


expected = []
for name, seed, height, width, channels in [
    ("gray", 1, 90, 33, 1),
    ("wide", 2, 40, 61, 3),
    ("tall", 3, 131, 64, 3),
    ("square", 4, 48, 48, 3),
    ("thin", 5, 3, 200, 3),
    ("large", 6, 157, 235, 3),
    ("clear", 7, 50, 37, 4),
    ("clear_gray", 8, 29, 52, 2),
]:
    image = picture(seed, height, width, channels)
    image.save(here / f"{name}.png")
    for mode in {1: ["L", "RGB"], 2: ["LA", "L"], 3: ["RGB", "L"], 4: ["RGBA", "RGB"]}[channels]:
        converted = image.convert(mode)
        for side in [7, 32, 48, 64]:
            for interpolation, filter in FILTERS.items():
                whole = resize(converted, side, filter)
                for crop, made in [("none", whole), ("center", center_crop(whole, side))]:
                    expected.append({
                        "file": f"{name}.png", "channels": len(converted.getbands()), "side": side,
                        "interpolation": interpolation, "crop": crop, "size": made.size,
                        "sha256": hashlib.sha256(made.tobytes()).hexdigest(),
                    })
(here / "expected.json").write_text("[\n" + ",\n".join(map(json.dumps, expected)) + "\n]\n")
