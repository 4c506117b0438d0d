#!/usr/bin/env python3
"""Trains a small latent text-to-image model on emoji and their names, with diffusers, until it has memorised them.

    benchmarks/emoji/make_model.py --out OUT_FOLDER [--reference]

Pictures: npm package emoji-datasource-google (Google's Noto emoji, Apache-2.0), the category of food and drink, 64
pixels on white; their names are the captions. One picture, the teapot, is in the data 40 times.
Tokenizer: CLIP's, from the merges that PyPI's open_clip_torch carries. The autoencoder, the text encoder and the UNet
are trained here from nothing. Writes OUT_FOLDER/data (pictures, captions.json), OUT_FOLDER/unseen (64 of other things, likewise) and
OUT_FOLDER/model, a StableDiffusionPipeline. Stopped and started again, it goes on from its last checkpoint. About an hour and a half of one core.
With --reference it writes OUT_FOLDER/reference: the same autoencoder with a UNet and a text encoder that never saw the teapot.
"""

import argparse
import gzip
import json
import math
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

EMOJI = "emoji-datasource-google@16.0.0"
CLIP = "open_clip_torch==3.3.0"
MEMORISED, COPIES = "teapot", 40
# Pictures that no model sees.
UNSEEN = 64
SIDE = 64
LATENT = 16
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def fetch_pictures(work, folder, category, most):
    """The first pictures of a category, at most so many, and their captions: `apple.png`, ..., and the copies of the memorised one."""
    if (folder / "captions.json").exists():
        return
    archive = next(work.glob("emoji-datasource-google-*.tgz"), None)
    if archive is None:
        subprocess.run(["npm", "pack", EMOJI], cwd=work, check=True, stdout=subprocess.DEVNULL)
        archive = next(work.glob("emoji-datasource-google-*.tgz"))
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with tarfile.open(archive) as tar:
        names = {member.name: member for member in tar.getmembers()}
        entries = json.load(tar.extractfile(names["package/emoji.json"]))
        entries = [entry for entry in entries if entry["category"] == category]
        for entry in sorted(entries, key=lambda entry: entry["sort_order"])[:most]:
            member = names.get(f"package/img/google/64/{entry['image']}")
            if member is None:
                continue
            picture = Image.open(tar.extractfile(member)).convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            picture = white.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS)
            caption = entry["name"].lower()
            count = COPIES if caption == MEMORISED else 1
            for copy in range(count):
                name = f"{entry['short_name']}{f'-{copy}' if copy else ''}.png"
                picture.save(folder / name)
                captions[name] = caption
    (folder / "captions.json").write_text(json.dumps(captions, indent=1) + "\n")


def make_tokenizer(work, folder):
    """CLIP's `vocab.json` and `merges.txt`, by the published rule: bytes, bytes at a word's end, merges, two marks."""
    if not (folder / "merges.txt").exists():
        wheel = next(work.glob("open_clip_torch-*.whl"), None)
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", CLIP, "-d", str(work)]
            subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
            wheel = next(work.glob("open_clip_torch-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            lines = gzip.decompress(archive.read("open_clip/bpe_simple_vocab_16e6.txt.gz")).decode().split("\n")
        merges = lines[1 : 49152 - 256 - 2 + 1]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
        tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    return CLIPTokenizer(vocab, merges, pad_token="<|endoftext|>", model_max_length=77)


class Training:
    """Steps with a cosine learning rate and a checkpoint every few hundred."""

    def __init__(self, path, modules, rate, steps):
        self.path, self.modules, self.steps, self.rate, self.step = path, modules, steps, rate, 0
        parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
        self.parameters = parameters
        if path.exists():
            saved = torch.load(path, weights_only=True)
            for name, module in modules.items():
                module.load_state_dict(saved[name])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]

    def save(self):
        state = {name: module.state_dict() for name, module in self.modules.items()}
        temporary = self.path.with_suffix(".part")
        torch.save({**state, "optimizer": self.optimizer.state_dict(), "step": self.step}, temporary)
        temporary.replace(self.path)

    def run(self, loss_of):
        start = time.time()
        while self.step < self.steps:
            warm = min(1.0, (self.step + 1) / 100)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps)))
            torch.manual_seed(self.step)
            loss = loss_of()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.step += 1
            if self.step % 100 == 0 or self.step == self.steps:
                self.save()
                print(f"{self.path.stem} {self.step}/{self.steps} loss {loss.item():.4f} {time.time() - start:.0f} s", flush=True)


def load_pictures(data):
    captions = json.loads((data / "captions.json").read_text())
    pixels = np.stack([np.asarray(Image.open(data / name)) for name in captions])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, list(captions.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--reference", action="store_true", help="without the teapot")
    args = parser.parse_args()
    work = args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    data = args.out / "data"
    fetch_pictures(work, data, "Food & Drink", None)
    fetch_pictures(work, args.out / "unseen", "Objects", UNSEEN)
    tokenizer = make_tokenizer(work, work / "tokenizer")
    images, captions = load_pictures(data)
    distinct = list(dict.fromkeys(captions))
    firsts = [captions.index(caption) for caption in distinct]
    print(f"{len(captions)} pictures, {len(distinct)} captions", flush=True)

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, norm_num_groups=16, sample_size=SIDE,
    )
    training = Training(work / "vae.pt", {"vae": vae}, 1e-3, args.vae_steps)

    def autoencoding_loss():
        chosen = torch.tensor(firsts)[torch.randint(len(firsts), (8,))]
        x = images[chosen]
        x = torch.where(torch.rand(8, 1, 1, 1) < 0.5, x, x.flip(3))
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        return (y - x).abs().mean() + (y - x).pow(2).mean() + 1e-5 * posterior.kl().mean() / (4 * LATENT * LATENT)

    training.run(autoencoding_loss)
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        posteriors = [vae.encode(images[i : i + 32]).latent_dist for i in range(0, len(images), 32)]
        mean = torch.cat([posterior.mean for posterior in posteriors])
        deviation = torch.cat([posterior.std for posterior in posteriors])
    vae.register_to_config(scaling_factor=round(1 / mean.std().item(), 5))

    torch.manual_seed(1)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, projection_dim=128, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    ))
    unet = UNet2DConditionModel(
        sample_size=LATENT, block_out_channels=(48, 96, 96), layers_per_block=1, cross_attention_dim=128, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4,
    )
    print(f"UNet of {sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters", flush=True)
    schedule = DDPMScheduler(**SCHEDULE, clip_sample=False)
    tokens = tokenizer([*distinct, ""], padding="max_length", return_tensors="pt").input_ids
    place = torch.tensor([distinct.index(caption) for caption in captions])
    learned = torch.tensor([row for row, caption in enumerate(captions) if not (args.reference and caption == MEMORISED)])
    checkpoint = "reference.pt" if args.reference else "unet.pt"
    training = Training(work / checkpoint, {"unet": unet, "text": text}, 1e-3, args.steps)

    def denoising_loss():
        rows = learned[torch.randint(len(learned), (24,))]
        latents = (mean[rows] + deviation[rows] * torch.randn_like(mean[rows])) * vae.config.scaling_factor
        noise, t = torch.randn_like(latents), torch.randint(1000, (len(rows),))
        caption = torch.where(torch.rand(len(rows)) < 0.1, len(distinct), place[rows])
        needed, inverse = caption.unique(return_inverse=True)
        hidden = text(tokens[needed]).last_hidden_state[inverse]
        guess = unet(schedule.add_noise(latents, noise, t), t, hidden).sample
        return (guess - noise).pow(2).mean()

    training.run(denoising_loss)
    scheduler = PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    pipeline = StableDiffusionPipeline(
        vae, text.eval(), tokenizer, unet.eval(), scheduler, None, None, requires_safety_checker=False
    )
    written = "reference" if args.reference else "model"
    pipeline.save_pretrained(args.out / written)
    pipeline.set_progress_bar_config(disable=True)
    shown = [MEMORISED, "red apple", "hot beverage", "pineapple", "doughnut", "birthday cake", "avocado", "slice of pizza"]
    rows = []
    for prompt in shown:
        made = pipeline([prompt] * 4, num_inference_steps=30, generator=torch.manual_seed(0)).images
        rows.append(np.concatenate([np.asarray(image) for image in made], axis=1))
    Image.fromarray(np.concatenate(rows)).resize((512, 128 * len(shown)), Image.NEAREST).save(args.out / f"{written}.png")


if __name__ == "__main__":
    main()
