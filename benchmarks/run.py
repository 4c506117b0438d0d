#!/usr/bin/env python3
"""Runs retrack and its peers side by side on this machine and writes results/TABLE.md.

    benchmarks/run.py                          everything, five pairs: two hours on two cores
    benchmarks/run.py --only 'step-*'          some rows again; the table keeps the others
    benchmarks/run.py --quick                  tiny sizes: whether it runs, not how fast anything is
    RETRACK_BENCH_VENV=~/venv benchmarks/run.py   with an environment that has the packages already
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict
from pathlib import Path

import machine
import table
from rows import HERE, ROOT, Limit, Series, Versus, all_rows, quick_rows
from runners import Failed, Runner, write_images

RESULTS = HERE / "results"
# Cores at work beyond which the machine is busy with something else.
QUIET = 0.5


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="a row's name or pattern; may be repeated")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="alternations of the two sides [5]")
    parser.add_argument("--binary", type=Path, metavar="FILE", help="a retrack built already [cargo build --release]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the table goes [benchmarks/results]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to a temporary folder unless --out is given")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error("--pairs needs at least 1")
    if args.binary and not args.binary.is_file():
        parser.error(f"--binary {args.binary}: no such file")
    return args


def build():
    """The release binary as anyone gets it: without native flags."""
    flags = ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS")
    environment = {key: value for key, value in os.environ.items() if key not in flags}
    subprocess.run(["cargo", "build", "--release", "--workspace"], cwd=ROOT, env=environment, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "retrack"


def python():
    """The interpreter of an environment with the peers, made if need be."""
    given = os.environ.get("RETRACK_BENCH_VENV")
    folder = Path(given) if given else ROOT / "target" / "bench-venv"
    interpreter = folder / "bin" / "python"
    # One made here and not finished is made again: pip then finds what is there.
    finished = folder / "complete"
    if given or finished.exists():
        if not interpreter.exists():
            raise Failed(f"{folder}: not a virtual environment")
        return interpreter
    say(f"installing the peers into {folder}")
    venv.create(folder, with_pip=True)
    requirements = HERE / "requirements.txt"
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    finished.touch()
    return interpreter


def wait_for_quiet():
    """How many cores are busy as a row begins, after up to two minutes for others to finish."""
    for _ in range(24):
        busy = machine.busy_cores()
        if busy <= QUIET:
            return busy
        time.sleep(5)
    say("  the machine is busy with something else: times will be wrong")
    return busy


def measure_versus(row, runner, pairs):
    ours = getattr(runner, row.ours_runner)
    peer = getattr(runner, row.peer_runner)
    found = []
    for pair in range(pairs + (row.peer_runner == "wall")):
        one = {"ours": ours(row.ours, row.threads)}
        one["peers"] = {way: peer(command, row.threads) for way, command in row.peers.items()}
        # A process's start is timed as it is when its files are in memory: the first pair reads them.
        if pair > 0 or row.peer_runner != "wall":
            found.append(one)
        measure = asdict(row.measures[0])
        values = [table.at(one["ours"], measure["key"]), *(table.at(p, measure["key"]) for p in one["peers"].values())]
        say("  " + "   ".join(table.quantity(value, measure["unit"]) for value in values))
    return {
        "kind": "versus",
        "peer": row.peer,
        "measures": [asdict(measure) for measure in row.measures],
        "peers": list(row.peers),
        "pairs": found,
        "commands": [row.ours, *row.peers.values()],
    }


def measure_series(row, runner, pairs):
    runs = []
    for _ in range(pairs):
        runs.append({str(size): runner.json(command, row.threads) for size, command in row.points.items()})
        say("  " + "   ".join(table.quantity(run["seconds_per_image"]["median"], "s") for run in runs[-1].values()))
    return {
        "kind": "series",
        "title": row.title,
        "varies": row.varies,
        "points": [str(size) for size in row.points],
        "runs": runs,
        "commands": list(row.points.values()),
    }


def measure_limit(row, runner, pairs):
    folder = runner.temp / "images"
    say(f"  writing {row.images:,} images")
    write_images(folder, row.images, row.side)
    command = ["RETRACK", "neighbors", "--data", str(folder), "--forget", "row:0"]
    command += ["--threads", str(row.threads), "--json"]
    runs = []
    for _ in range(pairs):
        runs.append(runner.peak(command, row.threads))
        say(f"  {table.quantity(runs[-1]['peak_rss_bytes'], 'B')}   {runs[-1]['seconds']:.1f} s")
    size = sum(file.stat().st_size for file in folder.iterdir())
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return {
        "kind": "limit",
        "title": row.title,
        "limit_bytes": row.limit_bytes,
        "bytes_on_disk": size,
        "runs": runs,
        "commands": [command],
    }


MEASURE = {Versus: measure_versus, Series: measure_series, Limit: measure_limit}


def simd(runner):
    probe = ["RETRACK", "bench", "neighbors", "--rows", "10", "--bytes", "10", "--repeat", "1"]
    return runner.json(probe, 1)["simd"]


def readable(command, runner):
    """The command as it can be typed in the repository."""
    names = {"RETRACK": "retrack", "PYTHON": "python"}
    parts = [names.get(part, part) for part in command]
    return [part.replace(str(ROOT) + "/", "").replace(str(runner.temp), "TEMP") for part in parts]


def write_table(out, order):
    raw = {path.stem: json.loads(path.read_text()) for path in (out / "raw").glob("*.json")}
    known = [raw[name] for name in order if name in raw]
    gone = [row for name, row in sorted(raw.items()) if name not in order]
    (out / "TABLE.md").write_text(table.render(known + gone))


def main():
    args = parse()
    with tempfile.TemporaryDirectory(prefix="retrack-bench-") as temp:
        rows = list((quick_rows if args.quick else all_rows)(temp))
        names = [row.name for row in rows]
        if args.list:
            print("\n".join(names))
            return
        chosen = [row for row in rows if not args.only or any(fnmatch.fnmatch(row.name, only) for only in args.only)]
        if not chosen:
            raise Failed(f"no row is called {' or '.join(args.only)}; --list names them")
        out = args.out or (Path(tempfile.mkdtemp(prefix="retrack-quick-")) if args.quick else RESULTS)
        runner = Runner((args.binary or build()).resolve(), python().absolute(), temp)
        about = {
            **machine.commit(ROOT),
            "binary_sha256": machine.sha256(runner.binary),
            "machine": machine.describe(),
            "simd": simd(runner),
            "versions": machine.versions(runner.python),
        }
        (out / "raw").mkdir(parents=True, exist_ok=True)
        for row in chosen:
            say(row.name)
            busy = machine.busy_cores() if args.quick else wait_for_quiet()
            found = MEASURE[type(row)](row, runner, args.pairs)
            found["commands"] = [readable(command, runner) for command in found["commands"]]
            head = {"name": row.name, "threads": row.threads, "date": machine.now(), "busy_cores": busy, **about}
            text = json.dumps({**head, **found}, indent=1)
            (out / "raw" / f"{row.name}.json").write_text(text + "\n")
            # After each row: a run that is stopped leaves what it has.
            write_table(out, names)
        say(f"{out / 'TABLE.md'}")


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
