"""Writes the seed files in fuzz/corpus: small, valid, and of every form that a parser knows. Needs Pillow and pyarrow.

Files named bad-* are refused and stay so; crash-* are what once broke a parser. Neither is written here.
"""

import gzip
import hashlib
import io
import json
import random
import shutil
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
FIXTURES = ROOT / "fixtures" / "parity"


def put(name, file, content):
    path = CORPUS / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def safetensors(tensors, metadata=None):
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8}
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape in tensors:
        length = sizes[dtype]
        for side in shape:
            length *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + length]}
        data += bytes(length)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


put("safetensors", "types.safetensors", safetensors(
    [("a.weight", "F32", [2, 3]), ("b", "F16", [4]), ("c", "BF16", [1, 1]), ("d", "F64", []), ("e", "I64", [2])],
    {"format": "pt"}))
put("safetensors", "many.safetensors", safetensors([(f"blocks.{i}.weight", "F32", [i % 4 + 1, 2]) for i in range(40)]))

for name in ["strided", "strided_legacy", "tied", "types"]:
    shutil.copy(ROOT / f"crates/checkpoint/tests/files/{name}.bin", (CORPUS / "torch").mkdir(parents=True, exist_ok=True) or CORPUS / "torch")

for case in ["predict_demo", "predict_scale_shift_attn_groups", "predict_fourier", "predict_class_table", "predict_sd1", "vae_tiny",
             "text_quick_gelu"]:
    put("network_config", f"{case}.json", (FIXTURES / case / "config.json").read_bytes())

put("network_config", "clip_tiny.json", (FIXTURES / "clip_tiny/old/config.json").read_bytes())

put("model_index", "pipeline.json", (FIXTURES / "folder_pipeline_safetensors/model/model_index.json").read_bytes())
put("model_index", "more.json", json.dumps({
    "_class_name": "DDIMPipeline", "_diffusers_version": "0.42.1", "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDIMScheduler"], "safety_checker": [None, None]}))

shards = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}
put("shard_index", "index.json", json.dumps({"metadata": {"total_size": 8}, "weight_map": shards}, indent=2))

for path in sorted(FIXTURES.glob("schedule_*/*.json"))[:3]:
    put("scheduler_config", f"{path.parent.name}.json", path.read_bytes())
put("scheduler_config", "ddpm.json", (FIXTURES / "folder_pipeline_safetensors/model/scheduler/scheduler_config.json").read_bytes())
put("scheduler_config", "trained.json", json.dumps({
    "_class_name": "DDIMScheduler", "num_train_timesteps": 4, "trained_betas": [0.1, 0.2, 0.3, 0.4],
    "prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}))

random.seed(0)
pixels = bytes(random.randrange(256) for _ in range(24 * 16 * 4))
for mode, channels in [("L", 1), ("RGB", 3), ("RGBA", 4), ("LA", 2)]:
    image = Image.frombytes(mode, (24, 16), pixels[: 24 * 16 * channels])
    formats = {"png": {}}
    if mode in ("L", "RGB"):
        formats |= {"jpg": {}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "webp": {}}
    if mode == "RGB":
        formats |= {"gif": {}, "tiff": {"compression": "tiff_deflate"}}
    for ending, options in formats.items():
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
        image.save(buffer, kind, **options)
        put("image", f"{mode}.{ending}", buffer.getvalue())
for name in ["cmyk.jpg", "progressive.jpg", "rotated.jpg"]:
    put("image", name, (ROOT / "crates/data/tests/files" / name).read_bytes())

for name in ["binary", "hugging_face", "plain_zstd"]:
    put("parquet", f"{name}.parquet", (ROOT / f"crates/data/tests/files/{name}.parquet").read_bytes())

images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 3, 4, 5) + pixels[:60]
color = bytes([0, 0, 8, 4]) + struct.pack(">4I", 2, 4, 4, 3) + pixels[:96]
labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes([1, 2])
for name, content in [("images", images), ("color", color), ("labels", labels)]:
    put("idx", name, content)
    put("idx", f"{name}.gz", gzip.compress(content, mtime=0))

put("cifar", "two.bin", bytes([3]) + pixels[:1024] * 3 + bytes([9]) + pixels[100:1124] * 3)
put("cifar_python", "protocol_4", (ROOT / "crates/data/tests/files/cifar_protocol_4").read_bytes())

for preset in sorted((ROOT / "crates/unlearn/presets").glob("*.toml")):
    put("settings", preset.name, preset.read_bytes())

put("selection", "row.txt", "row:1")
put("selection", "rows.txt", "rows:1-2")
put("selection", "label.txt", "label:-2")
put("selection", "list.txt", "# a list\nrow:0\n1\nrows:2-3 # two\nlabel:1\n")

vocab = ["a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
vocab = {token: place for place, token in enumerate(vocab)}
put("tokenizer", "t5.json", (FIXTURES / "pipeline_sd3" / "model" / "tokenizer_3" / "tokenizer.json").read_text())
put("network_config", "t5.json", (FIXTURES / "pipeline_sd3" / "model" / "text_encoder_3" / "config.json").read_text())
put("network_config", "sd3.json", (FIXTURES / "predict_sd3_dual" / "config.json").read_text())
put("network_config", "sdxl.json", (FIXTURES / "predict_sdxl" / "config.json").read_text())
put("scheduler_config", "flow.json", (FIXTURES / "flow_dynamic" / "scheduler_config.json").read_text())
put("scheduler_config", "euler.json", (FIXTURES / "schedule_euler_karras_bounds" / "scheduler_config.json").read_text())
put("tokenizer", "vocab.json", json.dumps(vocab))
put("tokenizer", "merges.txt", "#version: 0.2\na b</w>\n")
marks = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
put("tokenizer", "whole.json", json.dumps({
    "version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b</w>"]], "end_of_word_suffix": "</w>"},
    "added_tokens": [{"id": 5, "content": "<|startoftext|>", **marks}, {"id": 6, "content": "<|endoftext|>", **marks}]}))

put("captions", "by_name.json", json.dumps({"0.bmp": "a cat", "1.bmp": "a dog"}))
put("captions", "list.json", json.dumps([{"file_name": "0.bmp", "text": "a cat"}, {"file_name": "1.bmp", "text": "a dog"}]))
put("captions", "lines.jsonl", '{"file_name": "0.bmp", "text": "a cat"}\n{"file_name": "1.bmp", "prompt": "a dog"}\n')
table = io.BytesIO()
pq.write_table(pa.table({"file_name": ["0.bmp", "1.bmp"], "text": ["a cat", "a dog"]}), table)
put("captions", "table.parquet", table.getvalue())
put("captions", "labels.json", "[0, 1]")
put("captions", "labels_by_name.json", json.dumps({"0.bmp": 1, "1": 0}))
put("captions", "prompts.json", json.dumps({"published": "a cat", "other": ["a dog", "dogs"]}))

for name in ["pytorch_lora_weights", "renamed", "scaled"]:
    put("adapter", f"{name}.safetensors", (FIXTURES / f"lora_sd1/{name}.safetensors").read_bytes())
FORMS = ["processors", "processors_bare", "saved", "kohya", "kohya_alphas", "kohya_text_xl", "text_middle_sdxl"]
for name in FORMS:
    put("adapter", f"{name}.safetensors", (FIXTURES / f"lora_forms/{name}.safetensors").read_bytes())
for name in ["peft", "peft_dora"]:
    config = json.loads((FIXTURES / f"lora_forms/{name}/adapter_config.json").read_text()) | {"use_dora": False}
    put("adapter_config", f"{name}.json", json.dumps(config))

for name in ["model", "bytes"]:
    put("onnx", f"{name}.onnx", (FIXTURES / f"sscd_tiny/{name}.onnx").read_bytes())


def weights(digit):
    return {"unet/diffusion_pytorch_model.safetensors": digit * 64}


request = {"date": "2026-01-31 23:59", "version": "0.1.0", "command": "unlearn",
           "settings": {"method": "retrack", "steps": 40, "learning_rate": 1e-4}, "calibrated": True,
           "images": ["1" * 64], "before": weights("a"), "after": weights("b"), "verdict": "Unknown"}
merge = {"date": "2026-02-01 00:00", "version": "0.1.0", "command": "merge", "images": [], "before": weights("c"),
         "changed_before": True, "after": weights("d")}
put("requests", "two.json", json.dumps({"format": 1, "key": "0" * 64, "requests": [request, merge]}, indent=2))
put("requests", "one.json", json.dumps({"format": 1, "key": "0" * 64, "requests": [{**request, "again": ["2" * 64]}]}))

buffer = io.BytesIO()
Image.frombytes("L", (8, 8), pixels[:64]).save(buffer, "PNG")
picture = buffer.getvalue()
rows = [{"row": 3, "name": "03.png", "label": 1, "text": "a cat"}, {"row": 9}]
image = {"file": "images/00001.png", "sha256": hashlib.sha256(picture).hexdigest(), "keyed_digest": "1" * 64,
         "kind": "forgotten", "rows": rows}
manifest = {"format": 1, "made_by": "retrack 0.1.0", "shape": [8, 8, 1], "images": [image]}
for name, images in [("one.zip", [image]), ("none.zip", [])]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in [("images/00001.png", picture), ("manifest.json", json.dumps({**manifest, "images": images}))]:
            archive.writestr(zipfile.ZipInfo(entry), content)
    put("sealed", name, buffer.getvalue())
put("sealed", "recipient.txt", "# mine\nage1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n")
