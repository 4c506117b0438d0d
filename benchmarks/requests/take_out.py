#!/usr/bin/env python3
"""The data that is left before each request, where forgotten pictures are deleted, and the rows of twenty retained images:
`take_out.py OUT_FOLDER COUNT`."""

import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

for folder in (Path(sys.argv[1]) / name for name in ("digits", "emoji")):
    data = pq.read_table(folder / "with.parquet")
    for label in range(1, int(sys.argv[2]) + 1):
        stays = pc.or_(pc.equal(data["label"], 0), pc.greater_equal(data["label"], label))
        pq.write_table(data.filter(stays), folder / f"left-{label}.parquet")
    rows = "".join(f"row:{row}\n" for row in range(0, 200, 10))
    (folder / "retained.txt").write_text(rows)
