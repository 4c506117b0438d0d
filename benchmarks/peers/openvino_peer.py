"""OpenVINO at the work of `retrack bench predict`: the network that diffusers builds, converted, in f32."""

import argparse
import json

import openvino
import torch
from diffusers import UNet2DModel

from common import emit, peak_rss_bytes, summary, timed


class Noise(torch.nn.Module):
    """The network with one tensor as its result, which is all that a conversion takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep):
        return self.model(sample, timestep, return_dict=False)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    with open(args.arch) as file:
        model = UNet2DModel.from_config(json.load(file)).eval()
    size = model.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    example = torch.randn(args.batch_size, model.config.in_channels, height, width), torch.full((args.batch_size,), 500)
    # Traced here, so that the same graph also says what the conversion must compute.
    with torch.no_grad():
        traced = torch.jit.trace(Noise(model), example)
        converted = openvino.convert_model(traced, example_input=example)
        expected = traced(*example)
    settings = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    inputs = [tensor.numpy() for tensor in example]
    found = compiled(inputs)[0]
    error = abs(found - expected.numpy()).max()
    assert error < 1e-3 * abs(expected).max(), error
    seconds = timed(args.repeat, lambda: compiled(inputs))
    emit(
        work="predict",
        batch_size=args.batch_size,
        threads=args.threads,
        repeat=args.repeat,
        seconds_per_image=summary(seconds, args.batch_size),
        peak_rss_bytes=peak_rss_bytes(),
    )


main()
