#!/usr/bin/env python3
"""Ten thousand digits of 16 x 16, thirty of which lie in the data a hundred times; the same without them; digits in neither.

    make_data.py OUT_FOLDER

Needs `pip install pillow==13.0.0 pyarrow==26.0.1`. Writes {with,without,unseen}.parquet, the model's arch.json, forget.txt (the
thirty and 970 others) and planted.txt (the thirty alone).
"""

import io
import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, PLANTED, COPIES, OTHERS, UNSEEN, REQUESTED = 16, 30, 100, 7000, 64, 1000
DIGITS = Path(__file__).parent / "../../assets/digits.parquet"


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    source = pq.read_table(DIGITS)["image"].to_pylist()

    def png(row):
        file = io.BytesIO()
        picture = Image.open(io.BytesIO(source[row]["bytes"])).convert("L")
        picture.resize((SIDE, SIDE), Image.LANCZOS).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    def write(name, rows):
        pq.write_table(pa.table({"image": [png(row) for row in rows]}), out / name)

    chance = random.Random(0)
    order = list(range(10000))
    chance.shuffle(order)
    planted, rest = set(order[:PLANTED]), order[PLANTED:]
    others = rest[:OTHERS]
    rows = [row for row in order[:PLANTED] for _ in range(COPIES)] + others
    chance.shuffle(rows)
    write("with.parquet", rows)
    write("without.parquet", others)
    write("unseen.parquet", rest[OTHERS : OTHERS + UNSEEN])

    first = {}
    for place, row in enumerate(rows):
        first.setdefault(row, place)
    known = sorted(first[row] for row in planted)
    ordinary = [place for place, row in enumerate(rows) if row not in planted]
    chance.shuffle(ordinary)
    requested = sorted(known + ordinary[: REQUESTED - PLANTED])
    for name, places in ("forget.txt", requested), ("planted.txt", known):
        (out / name).write_text("".join(f"row:{place}\n" for place in places))
    architecture = {
        "_class_name": "UNet2DModel",
        "sample_size": SIDE,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [16, 32],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    (out / "arch.json").write_text(json.dumps(architecture, indent=1) + "\n")


if __name__ == "__main__":
    main()
