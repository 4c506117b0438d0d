"""PyTorch and diffusers at the work of `retrack bench step`, `predict` and `sample`.

What can make the peer faster or smaller without changing what it computes is on: AdamW's fused form, no gradient
history where none is needed, each loss's backward pass straight after its forward pass so that only one graph is held.
Which is the fastest differs, and may be chosen: a memory layout, both losses in one batch, Inductor (`torch.compile`). With
`--bf16` products are computed in half the bits, which changes the result.
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
    parser.add_argument("--together", action="store_true", help="one forward and backward pass for both losses")
    parser.add_argument("--compile", action="store_true", help="by Inductor; the call that is not timed compiles")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    return parser.parse_args()


class ReTrack:
    """One unlearning step (arXiv 2509.13007) on random images."""

    def __init__(self, model, args, layout):
        batch = args.batch_size
        shape = (batch, *image_shape(model))
        model.train()
        self.model = torch.compile(model) if args.compile else model
        self.layout = layout
        self.together, self.bf16 = args.together, args.bf16
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

    def predicted(self, noisy, timesteps):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(noisy.contiguous(memory_format=self.layout), timesteps).sample

    def backward(self, noisy, timesteps, target, weight):
        loss = (self.predicted(noisy, timesteps) - target).pow(2).sum((1, 2, 3)).mean()
        (weight * loss).backward()
        return loss.item()

    def backward_together(self, forget, retain):
        noisy, timesteps, target = (torch.cat(pair) for pair in zip(forget, retain))
        prediction = self.predicted(noisy, timesteps)
        losses = (prediction - target).pow(2).sum((1, 2, 3)).reshape(2, -1).mean(1)
        (LAMBDA * losses[0] + (1 - LAMBDA) * losses[1]).backward()
        return losses.tolist()

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
            forget = noisy, timesteps, target
        if not self.together:
            self.backward(*forget, LAMBDA)
        with torch.no_grad():
            noisy, noise, timesteps, _, _ = self.noised(self.retain)
            retain = noisy, timesteps, noise
        if self.together:
            self.backward_together(forget, retain)
        else:
            self.backward(*retain, 1 - LAMBDA)
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
    parameters = sum(p.numel() for p in model.parameters())
    images = args.batch_size
    if args.work == "step":
        seconds = timed(args.repeat, ReTrack(model, args, layout).step)
        images *= 2
    else:
        model.eval()
        shape = image_shape(model)
        if args.compile:
            model = torch.compile(model)
        start = torch.randn(images, *shape).contiguous(memory_format=layout)
        scheduler = DDPMScheduler()
        scheduler.set_timesteps(args.steps)

        @torch.inference_mode()
        def predict():
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                model(start, 500)

        @torch.inference_mode()
        def sample():
            x = start
            for t in scheduler.timesteps:
                with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                    noise = model(x, t).sample
                x = scheduler.step(noise, t, x).prev_sample

        seconds = timed(args.repeat, predict if args.work == "predict" else sample)
    emit(
        work=args.work,
        layout=args.layout,
        together=args.together,
        compiled=args.compile,
        bf16=args.bf16,
        batch_size=args.batch_size,
        threads=torch.get_num_threads(),
        simd=torch.backends.cpu.get_cpu_capability(),
        repeat=args.repeat,
        parameters=parameters,
        seconds_per_image=summary(seconds, images),
        peak_rss_bytes=peak_rss_bytes(),
        peak_above_import_bytes=peak_rss_bytes() - imported,
    )


main()
