"""An adapter in diffusers and what `retrack merge` made of it: `python load_adapter.py MODEL ADAPTER MERGED FARTHEST`.

The pipeline of MODEL with the weights of ADAPTER must predict what MERGED's network predicts, up to FARTHEST, and not what
it predicts without them.
"""

import sys

import diffusers
import torch
from diffusers import StableDiffusionPipeline

model, adapter, merged, farthest = sys.argv[1:]
FARTHEST = float(farthest)
pipeline, folded = (
    StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    for folder in (model, merged)
)
random = torch.Generator().manual_seed(0)
config = pipeline.unet.config
sample = torch.randn(2, config.in_channels, 8, 8, generator=random)
states = torch.randn(2, 77, config.cross_attention_dim, generator=random)


@torch.no_grad()
def predicted(network):
    return network.eval()(sample, torch.tensor([10, 700]), states).sample


before = predicted(pipeline.unet)
pipeline.load_lora_weights(adapter)
assert pipeline.get_active_adapters(), "no adapter was loaded"
adapted, expected = predicted(pipeline.unet), predicted(folded.unet)
change, difference = ((adapted - other).abs().max().item() for other in (before, expected))
assert difference < FARTHEST, difference
assert change > 10 * FARTHEST, f"an adapter that shows nothing: {change}"
print(f"{adapter}: within {difference:.1e} of the merged model, {change:.1e} from the plain one (diffusers {diffusers.__version__})")
