#!/usr/bin/env python3
"""FID and Inception Score of 2,000 real pictures by torchmetrics, for the test that computes them again.

    pip install -r fixtures/parity/requirements.txt scikit-learn
    scripts/quality_parity.py /tmp/quality
    RETRACK_QUALITY=/tmp/quality cargo test --workspace --test quality_parity -- --ignored --nocapture of_2000

The network is torch-fidelity's with weights by formula (fixtures/parity/README.md), written as the official file is. The
pictures are cuts of the two photographs that scikit-learn ships, 32 x 32 pixels: the second set's are smaller cuts, so
that the sets differ. Some minutes on two idle cores, and about as long for the test. A number after the folder takes
as many pictures a set instead of 1,000.
"""

import pathlib
import sys
from unittest import mock

PARITY = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "parity"
sys.path.insert(0, str(PARITY))
import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import parameter  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sklearn.datasets import load_sample_images  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.inception import InceptionScore  # noqa: E402

SIDE, BATCH = 32, 50


def pictures(count, seed, smallest, largest):
    """u8 [count, SIDE, SIDE, 3]."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    source = np.random.default_rng(seed)
    cuts = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(source.integers(smallest, largest + 1))
        left, top = (int(source.integers(0, size - side + 1)) for size in photograph.size)
        cut = photograph.crop((left, top, left + side, top + side))
        cuts.append(np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(cuts))


class Remembered(torch.nn.Module):
    """One of the network's outputs for images that were looked at before: both metrics ask, one pass is enough."""

    def __init__(self, outputs, features):
        super().__init__()
        self.outputs, self.num_features = outputs, features

    def forward(self, x):
        # Asked by number; torchmetrics itself only adds up what comes back.
        return self.outputs[x[:, 0, 0, 0].long()]


def main(folder, each):
    folder.mkdir(parents=True, exist_ok=True)
    # The class loads the official file when it is made; here its values are replaced afterwards.
    with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"), mock.patch("torch.load"):
        network = FeatureExtractorInceptionV3(
            "random", ["2048", "logits_unbiased"], feature_extractor_weights_path="none"
        )
    weights = {
        name: value if name.endswith("num_batches_tracked") else parameter(name, value.shape)
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(weights)
    torch.save(weights, folder / "inception.pth")

    sets = {"a": pictures(each, 0, 128, 400), "b": pictures(each, 1, 64, 256)}
    features, logits = [], []
    with torch.no_grad():
        for images in sets.values():
            for batch in images.permute(0, 3, 1, 2).split(BATCH):
                pooled, unbiased = network(batch.contiguous())
                features.append(pooled)
                logits.append(unbiased)
                print(f"{sum(map(len, features))} of {2 * each} pictures", file=sys.stderr, flush=True)
    features, logits = torch.cat(features), torch.cat(logits)

    numbers = torch.arange(2 * each)[:, None, None, None].expand(-1, 3, 1, 1)
    fid = FrechetInceptionDistance(feature=Remembered(features, 2048), input_img_size=(3, 1, 1))
    fid.used_custom_model = True
    fid.update(numbers[:each], real=True)
    fid.update(numbers[each:], real=False)
    # In one part: with more, torchmetrics draws which images make a part.
    score = InceptionScore(feature=Remembered(logits, 1008), splits=1)
    score.update(numbers)
    tensors = {
        **sets,
        "fid": fid.compute().double().reshape(1),
        "inception_score": score.compute()[0].double().reshape(1),
    }
    save_file(tensors, folder / "expected.safetensors")
    print({name: tensors[name].item() for name in ("fid", "inception_score")})


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 1000)
