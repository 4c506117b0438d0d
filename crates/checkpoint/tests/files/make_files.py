"""Small PyTorch files for the tests of the model-folder reader.

    python make_files.py        (made with torch 2.15.0)

Every value is small and exact in all element types, so that the tests can write it down.
"""

from pathlib import Path

import torch

HERE = Path(__file__).parent
numbers = torch.arange(24, dtype=torch.float32)

# Views that are not contiguous, in one storage and in their own.
grid = numbers.reshape(4, 6)
torch.save(
    {
        "transposed": grid.t(),
        "columns": grid[:, 1:4],
        "every_second": numbers[1::2],
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "channels_last": numbers.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    },
    HERE / "strided.bin",
)

# Every element type that is read.
torch.save(
    {
        name: numbers[:5].to(dtype)
        for name, dtype in {
            "f32": torch.float32,
            "f16": torch.float16,
            "bf16": torch.bfloat16,
            "f64": torch.float64,
            "i64": torch.int64,
        }.items()
    },
    HERE / "types.bin",
)

# The state dict of a module: an OrderedDict with `_metadata`; two parameters are one.
linear = torch.nn.Linear(2, 2)
tied = torch.nn.Sequential(linear, torch.nn.Linear(2, 2))
tied[1].weight = linear.weight
for parameter in tied.parameters():
    torch.nn.init.constant_(parameter, 0.5)
torch.save(tied.state_dict(), HERE / "tied.bin")

# A row longer than its storage.
torch.save({"expanded": torch.ones(1).expand(1000)}, HERE / "expanded.bin")
# An element type that no network's weights have.
torch.save({"bytes": torch.ones(3, dtype=torch.int8)}, HERE / "int8.bin")
# The format before PyTorch 1.6.
torch.save({"x": numbers}, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
# Not a state dict: a training checkpoint.
torch.save({"state_dict": {"x": numbers}, "epoch": 3}, HERE / "checkpoint.bin")
# A whole module.
torch.save(linear, HERE / "module.bin")

# A network that was wrapped for training on several machines.
torch.save({"module.conv_in.weight": numbers[:4].clone(), "module.conv_in.bias": numbers[4:6].clone()}, HERE / "wrapped.bin")

# The first file again, as versions before 1.6 wrote it.
torch.save(torch.load(HERE / "strided.bin"), HERE / "strided_legacy.bin", _use_new_zipfile_serialization=False)
