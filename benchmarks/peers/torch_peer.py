"""PyTorch and diffusers at the work of `retrack bench step`, `predict` and `sample`.

What can make the peer faster or smaller without changing what it computes is on: AdamW's fused form, no gradient
history where none is needed, each loss's backward pass straight after its forward pass so that only one graph is held,
and a memory layout to choose.
"""

import argparse
import json

import torch
from diffusers import DDPMScheduler, UNet2DModel

from common import emit, peak_rss_bytes, rss_bytes, summary, timed

NEIGHBORS = 10
LAMBDA = 0.005


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["step", "predict", "sample"])
    parser.add_argument("--arch", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--layout", choices=["nchw", "channels_last"], required=True)
    return parser.parse_args()


class ReTrack:
    """One unlearning step (arXiv 2509.13007) on random images."""

    def __init__(self, model, batch, layout):
        shape = (batch, *image_shape(model))
        self.model = model.train()
        self.layout = layout
        self.retain, self.forget = torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
        self.neighbors = torch.rand(batch, NEIGHBORS, *shape[1:]) * 2 - 1
        self.abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=2e-5, betas=(0.95, 0.999), weight_decay=1e-6, fused=True
        )

    def noised(self, clean):
        timesteps = torch.randint(0, 1000, (len(clean),))
        abar = self.abar[timesteps].reshape(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        signal, scale = abar.sqrt().float(), (1 - abar).sqrt().float()
        return signal * clean + scale * noise, noise, timesteps, signal, scale

    def backward(self, noisy, timesteps, target, weight):
        prediction = self.model(noisy.contiguous(memory_format=self.layout), timesteps).sample
        loss = (prediction - target).pow(2).sum((1, 2, 3)).mean()
        (weight * loss).backward()
        return loss.item()

    def redirected(self, noisy, signal, scale):
        """The noise that leads x_t to the weighted mean of the neighbors; the K residuals are never kept."""
        ratio = (noisy[:, None] - signal[:, None] * self.neighbors) / scale[:, None]
        weights = torch.softmax(ratio.double().pow(2).sum((2, 3, 4)) / -2, dim=1).float()
        clean = torch.einsum("nk,nkchw->nchw", weights, self.neighbors)
        return (noisy - signal * clean) / scale

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            noisy, _, timesteps, signal, scale = self.noised(self.forget)
            target = self.redirected(noisy, signal, scale)
        self.backward(noisy, timesteps, target, LAMBDA)
        with torch.no_grad():
            noisy, noise, timesteps, _, _ = self.noised(self.retain)
        self.backward(noisy, timesteps, noise, 1 - LAMBDA)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def image_shape(model):
    size = model.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return model.config.in_channels, height, width


def main():
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    imported = rss_bytes()
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    with open(args.arch) as file:
        model = UNet2DModel.from_config(json.load(file)).to(memory_format=layout)
    images = args.batch_size
    if args.work == "step":
        seconds = timed(args.repeat, ReTrack(model, images, layout).step)
        images *= 2
    else:
        model.eval()
        start = torch.randn(images, *image_shape(model)).contiguous(memory_format=layout)
        scheduler = DDPMScheduler()
        scheduler.set_timesteps(args.steps)

        @torch.inference_mode()
        def predict():
            model(start, 500)

        @torch.inference_mode()
        def sample():
            x = start
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample, t, x).prev_sample

        seconds = timed(args.repeat, predict if args.work == "predict" else sample)
    emit(
        work=args.work,
        layout=args.layout,
        batch_size=args.batch_size,
        threads=torch.get_num_threads(),
        simd=torch.backends.cpu.get_cpu_capability(),
        repeat=args.repeat,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds_per_image=summary(seconds, images),
        peak_rss_bytes=peak_rss_bytes(),
        peak_above_import_bytes=peak_rss_bytes() - imported,
    )


main()
