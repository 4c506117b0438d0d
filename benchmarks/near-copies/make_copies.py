"""Folders of pictures with near copies of some of them, one folder a kind of copy.

    python make_copies.py digits DIGITS_PARQUET OUT
    python make_copies.py emoji EMOJI_ARCHIVE OUT

DIGITS_PARQUET is assets/digits.parquet, EMOJI_ARCHIVE what `npm pack emoji-datasource-google@16.0.0` fetches. Of every folder
`forget.txt` beside it lists the pictures whose copies are in it, one each, called COPY-<name>. Needs `pip install pillow==13.0.0
pyarrow==26.0.1`.
"""

import io
import json
import random
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageEnhance

COPIED = 200


def digits(path):
    import pyarrow.parquet as pq

    seen = {}
    for row, entry in enumerate(pq.read_table(path).to_pylist()):
        picture = Image.open(io.BytesIO(entry["image"]["bytes"]))
        seen.setdefault(picture.tobytes(), (f"{row:05}", picture))
    return dict(seen.values())


def emoji(path):
    found, seen = {}, set()
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar.getmembers()}
        for entry in json.load(tar.extractfile(members["package/emoji.json"])):
            member = members.get(f"package/img/google/64/{entry['image']}")
            if member is None:
                continue
            picture = Image.open(tar.extractfile(member)).convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            small = white.convert("RGB").resize((32, 32), Image.LANCZOS)
            # Some characters have one picture.
            if small.tobytes() not in seen:
                seen.add(small.tobytes())
                found[entry["short_name"]] = small
    return found


def jpeg(quality):
    def save(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return save


def rescaled(share, how=Image.LANCZOS):
    def scale(picture):
        small = [round(side * share) for side in picture.size]
        return picture.resize(small, how).resize(picture.size, how)

    return scale


def cropped(picture):
    width, height = picture.size
    inner = [round(side * 0.95) for side in picture.size]
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return picture.crop((left, top, left + inner[0], top + inner[1])).resize(picture.size, Image.BICUBIC)


def moved(picture):
    whole = picture.copy()
    whole.paste(picture, (1, 0))
    return whole


def mirrored(picture):
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS = {
    "jpeg 80": jpeg(80),
    "jpeg 60": jpeg(60),
    "jpeg 40": jpeg(40),
    "rescaled by 90% and back": rescaled(0.9),
    "rescaled by 80% and back": rescaled(0.8),
    "rescaled by 70% and back": rescaled(0.7),
    "rescaled by 80% and back, bilinear": rescaled(0.8, Image.BILINEAR),
    "mirrored": mirrored,
    "mirrored, then jpeg 60": lambda picture: jpeg(60)(mirrored(picture)),
    "15% darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "15% brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "cropped to 95%": cropped,
    "moved by a pixel": moved,
    "none": None,
}


def main(kind, source, out):
    pictures = {"digits": digits, "emoji": emoji}[kind](source)
    names = sorted(pictures)
    chosen = random.Random(0).sample(names, COPIED)
    for number, (name, copy) in enumerate(KINDS.items()):
        folder = Path(out) / f"{number:02}"
        folder.mkdir(parents=True)
        for own in names:
            pictures[own].save(folder / f"{own}.png")
        for own in chosen if copy else []:
            copy(pictures[own]).convert(pictures[own].mode).save(folder / f"COPY-{own}.png")
        # False alarms are counted for more pictures.
        wanted = chosen if copy else random.Random(1).sample(names, min(1000, len(names)))
        (Path(out) / f"{number:02}.txt").write_text("".join(f"{own}.png\n" for own in wanted))
        (Path(out) / f"{number:02}.name").write_text(name)


main(*sys.argv[1:])
