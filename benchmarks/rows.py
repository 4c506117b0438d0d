"""What is measured: one entry a row or table, with the command of each side."""

import json
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Name, what it is, architecture, images of each stream in a step.
NETWORKS = [
    ("cifar10", "`google/ddpm-cifar10-32` shape", HERE / "arch" / "ddpm-cifar10-32.json", 8),
    ("mnist", "published MNIST network", HERE / "arch" / "mnist-tshirt.json", 32),
    ("demo", "the demo's network", ROOT / "assets" / "base-arch.json", 128),
]
# Too large for all rows: only a step, of the preset's micro-batch.
LARGE = ("celebahq", "`google/ddpm-ema-celebahq-256` shape", HERE / "arch" / "ddpm-ema-celebahq-256.json", 4)
LAYOUTS = ["nchw", "channels_last"]
# Ways to run PyTorch that take minutes to begin, or compute something else, and have rows of their own: what stands behind the row's
# name, what the row says, the options, and by how much ours must be faster (0: for comparison).
FURTHER = [
    ("compiled", "PyTorch, `torch.compile`", ["--compile"], 2.0),
    ("bf16", "PyTorch in bf16, which computes less", ["--bf16"], 0.0),
]
# Networks whose step's memory is compared.
MEMORY = ["cifar10", "celebahq", "tiny"]
SAMPLED = 16
SAMPLING_STEPS = 10


@dataclass
class Measure:
    """A number of both sides, and by how much ours must be smaller."""

    title: str
    # Where the number is in the JSON line; a dot goes one level down.
    key: str
    unit: str
    at_least: float
    # Where the peer's number is, if it is another one.
    peer_key: str = ""


@dataclass
class Versus:
    """Both sides in turns. Of several ways to run the peer the fastest counts."""

    name: str
    threads: int
    peer: str
    ours: list
    peers: dict
    measures: list
    # How a side runs that does not print its own JSON line: `run.py` knows these.
    ours_runner: str = "json"
    peer_runner: str = "json"


@dataclass
class Series:
    """Ours alone at several sizes, in turns: how the cost grows."""

    name: str
    title: str
    threads: int
    # What varies, what is constant if the cost grows linearly with it.
    varies: str
    # Size to command.
    points: dict = field(default_factory=dict)


@dataclass
class Limit:
    """Ours alone against an absolute limit."""

    name: str
    title: str
    threads: int
    images: int
    side: int
    limit_bytes: int


def torch_sides(work, arch, batch, repeat, threads, extra=()):
    common = [work, "--arch", str(arch), "--batch-size", str(batch), "--repeat", str(repeat)]
    common += ["--threads", str(threads), *extra]
    peer = ["PYTHON", str(HERE / "peers" / "torch_peer.py"), *common]
    peers = {layout: [*peer, "--layout", layout] for layout in LAYOUTS}
    if work == "step":
        peers["channels_last, both losses in one batch"] = [*peers["channels_last"], "--together"]
    return ["RETRACK", "bench", *common], peers


def step_row(threads, name, title, arch, batch, repeat):
    ours, peers = torch_sides("step", arch, batch, repeat, threads)
    measures = [Measure(f"ReTrack step, {title}, {batch} + {batch} images", "seconds_per_image.median", "s", 2.0)]
    if name in MEMORY and threads == 2:
        memory = f"peak memory of that step, {title}"
        measures.append(Measure(memory, "peak_rss_bytes", "B", 1.0))
        above = f"{memory}; of PyTorch only what comes on top of its imports"
        measures.append(Measure(above, "peak_rss_bytes", "B", 1.0, "peak_above_import_bytes"))
    suffix = "" if threads == 2 else f"-{threads}t"
    return Versus(f"step-{name}{suffix}", threads, "PyTorch", ours, peers, measures)


def further_rows(networks):
    for name, title, arch, batch in networks:
        ours, peers = torch_sides("step", arch, batch, 3, 2)
        for ending, peer, options, at_least in FURTHER:
            title_here = f"ReTrack step, {title}, {batch} + {batch} images"
            measures = [Measure(title_here, "seconds_per_image.median", "s", at_least)]
            ways = {way: [*command, *options] for way, command in peers.items() if "nchw" not in way}
            yield Versus(f"step-{name}-{ending}", 2, peer, ours, ways, measures)
    for name, title, arch, _ in networks:
        for batch in (1, SAMPLED):
            common = ["--arch", str(arch), "--batch-size", str(batch), "--repeat", "5", "--threads", "2"]
            title_here = f"sampling: one forward pass, {title}, batch {batch}"
            measures = [Measure(title_here, "seconds_per_image.median", "s", 0.0)]
            yield Versus(
                f"predict-{name}-{batch}-openvino",
                2,
                "OpenVINO",
                ["RETRACK", "bench", "predict", *common],
                {"f32": ["PYTHON", str(HERE / "peers" / "openvino_peer.py"), *common]},
                measures,
            )


def network_rows(threads, networks, sampled):
    suffix = "" if threads == 2 else f"-{threads}t"
    for network in networks:
        yield step_row(threads, *network, repeat=3)
    for name, title, arch, _ in networks:
        # A forward pass of the smallest network takes 25 ms: few of them would be at the mercy of the machine.
        ours, peers = torch_sides("predict", arch, sampled, 20 if name == "demo" else 5, threads)
        title = f"sampling: one forward pass, {title}, batch {sampled}"
        measures = [Measure(title, "seconds_per_image.median", "s", 2.0)]
        yield Versus(f"predict-{name}{suffix}", threads, "PyTorch", ours, peers, measures)
    if threads != 2:
        return
    for name, title, arch, _ in networks:
        ours, peers = torch_sides("sample", arch, sampled, 2, threads, ["--steps", str(SAMPLING_STEPS)])
        title = f"sampling: whole images, {SAMPLING_STEPS} DDPM steps, {title}, batch {sampled}"
        measures = [Measure(title, "seconds_per_image.median", "s", 2.0)]
        yield Versus(f"sample-{name}", threads, "diffusers", ours, peers, measures)


def neighbor_rows(threads, rows, length):
    common = ["--rows", str(rows), "--bytes", str(length), "--queries", "1", "--neighbors", "10"]
    common += ["--repeat", "9", "--threads", str(threads)]
    suffix = "" if threads == 2 else f"-{threads}t"
    for library, peer, at_least in [
        ("sklearn", "scikit-learn, fit + query", 10.0),
        ("faiss", "faiss `IndexFlatL2`, query", 3.0),
    ]:
        title = f"10 neighbors of 1 image in {rows:,} x {length:,} bytes in memory"
        yield Versus(
            f"neighbors-{library}{suffix}",
            threads,
            peer,
            ["RETRACK", "bench", "neighbors", *common],
            {library: ["PYTHON", str(HERE / "peers" / "neighbors_peer.py"), library, *common]},
            [Measure(title, "seconds_per_query.median", "s", at_least)],
        )


def start_row():
    shirt = ["--data", str(ROOT / "assets" / "digits.parquet"), "--forget", "label:10"]
    model = ["--model", str(ROOT / "assets" / "base-model"), "--preset", "demo"]
    return Versus(
        "start",
        2,
        '`python -c "import torch, diffusers"`',
        ["RETRACK", "unlearn", *model, *shirt, "--threads", "2", "--out", "TEMP/out"],
        {"import": ["PYTHON", "-c", "import torch, diffusers"]},
        [Measure("from start to first step on the demo model", "seconds", "s", 1.0)],
        ours_runner="first_step",
        peer_runner="wall",
    )


def large_row(images, side):
    title = f"10 neighbors in {images:,} images of {side} x {side} x 3 in a folder"
    return Limit("neighbors-large", title, 2, images, side, 500 * 10**6)


def series(temp, title, arch, batches, sides, batch):
    """`temp` takes the architectures of other sizes."""

    def command(path, batch):
        step = ["RETRACK", "bench", "step", "--arch", str(path), "--batch-size", str(batch)]
        return [*step, "--repeat", "3", "--threads", "2"]

    yield Series(
        "scaling-batch",
        f"ReTrack step, {title}: images of each stream",
        2,
        "batch",
        {size: command(arch, size) for size in batches},
    )
    config = json.loads(Path(arch).read_text())
    points = {}
    for side in sides:
        path = Path(temp) / f"{Path(arch).stem}-{side}px.json"
        path.write_text(json.dumps({**config, "sample_size": side}, indent=2))
        points[side] = command(path, batch)
    yield Series("scaling-pixels", f"ReTrack step, {title}, {batch} + {batch} images: pixels", 2, "pixels", points)


def all_rows(temp):
    for threads in (2, 1):
        yield from network_rows(threads, NETWORKS, SAMPLED)
        yield from neighbor_rows(threads, 50_000, 3_072)
    yield step_row(2, *LARGE, repeat=1)
    yield from further_rows(NETWORKS)
    yield start_row()
    yield large_row(30_000, 256)
    _, title, arch, _ = NETWORKS[0]
    yield from series(temp, title, arch, [1, 2, 4, 8, 16], [16, 32, 64], 4)


def quick_rows(temp):
    """The same rows at sizes that take seconds: whether the scripts run, not how fast anything is."""
    arch = Path(temp) / "tiny.json"
    config = json.loads(NETWORKS[2][2].read_text())
    arch.write_text(json.dumps({**config, "sample_size": 16, "block_out_channels": [8, 8, 8]}))
    tiny = [("tiny", "a tiny network", arch, 2)]
    yield from network_rows(2, tiny, 2)
    yield from further_rows(tiny)
    yield from neighbor_rows(2, 500, 64)
    yield start_row()
    yield large_row(200, 64)
    yield from series(temp, "a tiny network", arch, [1, 2], [16, 32], 2)
