#!/usr/bin/env python3
"""Two small data sets with a few repeated images each, the same without them, and images that are in neither.

    make_data.py EMOJI_ARCHIVE OUT_FOLDER [REPEATED]

EMOJI_ARCHIVE is what `npm pack emoji-datasource-google@16.0.0` fetches (Google's Noto emoji, Apache-2.0). Needs
`pip install pillow==13.0.0 pyarrow==26.0.1`. Writes OUT_FOLDER/{digits,emoji}/{with,without,unseen}.parquet and arch.json:
200 pictures of 16 x 16 with label 0; in `with` also REPEATED pictures (6, at most 20) twenty times, with labels from 1 on.
"""

import io
import json
import random
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, COPIES, OTHERS, UNSEEN = 16, 20, 200, 64
ROWS = 25, 1225, 2425, 4025, 7025, 625, 3025, 5025, 6025, 8025, 9025, 1875, 2225, 3425, 4425, 5425, 6425, 7425, 8425
DIGITS = Path(__file__).parent / "../../assets/digits.parquet"


def digits(count):
    """Others, repeated ones and unseen ones. The first repeated one is the T-shirt."""
    rows = pq.read_table(DIGITS).to_pylist()

    def picture(row):
        return Image.open(io.BytesIO(rows[row]["image"]["bytes"]))

    others = [picture(row) for row in range(0, 10000, 10000 // OTHERS)]
    repeated = [picture(-1)] + [picture(row) for row in ROWS]
    return others, repeated[:count], [picture(row) for row in range(13, 10000, 151)][:UNSEEN]


def emoji(archive, count):
    """The same of emoji. The first repeated one is the teapot."""
    found = {}
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar.getmembers()}
        entries = json.load(tar.extractfile(members["package/emoji.json"]))
        for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
            member = members.get(f"package/img/google/64/{entry['image']}")
            if member is None or entry["category"] not in ("Food & Drink", "Animals & Nature", "Objects"):
                continue
            drawn = Image.open(tar.extractfile(member)).convert("RGBA")
            white = Image.new("RGBA", drawn.size, "white")
            white.alpha_composite(drawn)
            found[entry["short_name"]] = white.convert("RGB")
    names = sorted(found)
    random.Random(0).shuffle(names)
    names.remove("teapot")
    repeated = ["teapot", *names[300 : 299 + count]]
    rest = [name for name in names if name not in repeated]
    pictures = [found[name] for name in rest]
    first = OTHERS + 120
    return pictures[:OTHERS], [found[name] for name in repeated], pictures[first : first + UNSEEN]


def write(path, rows, mode):
    def png(picture):
        file = io.BytesIO()
        picture.convert(mode).resize((SIDE, SIDE), Image.LANCZOS).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    images = [png(picture) for picture, _ in rows]
    pq.write_table(pa.table({"image": images, "label": [label for _, label in rows]}), path)


def main():
    archive, out, count = sys.argv[1], Path(sys.argv[2]), int((*sys.argv, 6)[3])
    for name, (others, repeated, unseen), mode in ("digits", digits(count), "L"), ("emoji", emoji(archive, count), "RGB"):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        base = [(picture, 0) for picture in others]
        copies = [(picture, label) for label, picture in enumerate(repeated, 1) for _ in range(COPIES)]
        write(folder / "with.parquet", base + copies, mode)
        write(folder / "without.parquet", base, mode)
        write(folder / "unseen.parquet", [(picture, 0) for picture in unseen], mode)
        architecture = {
            "_class_name": "UNet2DModel",
            "sample_size": SIDE,
            "in_channels": len(mode),
            "out_channels": len(mode),
            "block_out_channels": [16, 32],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
        }
        (folder / "arch.json").write_text(json.dumps(architecture, indent=1) + "\n")


if __name__ == "__main__":
    main()
