"""An adapter in diffusers and what `retrack merge` made of it: `python load_adapter.py MODEL ADAPTER MERGED FARTHEST`.

The pipeline of MODEL with the weights of ADAPTER must predict what MERGED's network predicts, up to FARTHEST, and not what
it predicts without them.
"""

import sys

import diffusers
import torch
from diffusers import DiffusionPipeline

model, adapter, merged, farthest = sys.argv[1:]
FARTHEST = float(farthest)
pipeline, folded = (DiffusionPipeline.from_pretrained(folder, local_files_only=True) for folder in (model, merged))


def network(of):
    return of.transformer if hasattr(of, "transformer") else of.unet


random = torch.Generator().manual_seed(0)
config = network(pipeline).config
sample = torch.randn(2, config.in_channels, 8, 8, generator=random)
width = config.get("cross_attention_dim") or config.joint_attention_dim
told = {"encoder_hidden_states": torch.randn(2, 77, width, generator=random)}
if config.get("pooled_projection_dim"):
    told["pooled_projections"] = torch.randn(2, config.pooled_projection_dim, generator=random)
if config.get("addition_embed_type") == "text_time":
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    told["added_cond_kwargs"] = {"text_embeds": torch.randn(2, width, generator=random), "time_ids": sizes}


@torch.no_grad()
def predicted(of):
    return network(of).float().eval()(sample, timestep=torch.tensor([10, 700]), **told).sample


before = predicted(pipeline)
pipeline.load_lora_weights(adapter)
assert pipeline.get_active_adapters(), "no adapter was loaded"
adapted, expected = predicted(pipeline), predicted(folded)
change, difference = ((adapted - other).abs().max().item() for other in (before, expected))
assert difference < FARTHEST, difference
assert change > 10 * FARTHEST, f"an adapter that shows nothing: {change}"
print(f"{adapter}: within {difference:.1e} of the merged model, {change:.1e} from the plain one (diffusers {diffusers.__version__})")
