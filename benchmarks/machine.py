"""Where and with what a benchmark ran."""

import hashlib
import json
import os
import platform
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

# What decides a result: a table that is being written is no change.
SOURCES = ["crates", "Cargo.toml", "Cargo.lock", "benchmarks/*.py", "benchmarks/peers", "benchmarks/arch"]
PACKAGES = ["torch", "diffusers", "numpy", "scikit-learn", "faiss-cpu"]


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout.strip()


def describe():
    """The processor, its cores and the memory."""
    fields = {}
    for line in output("lscpu", env={**os.environ, "LC_ALL": "C"}).splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "model": fields.get("Model name", platform.processor()),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "l2": fields.get("L2 cache"),
        "l3": fields.get("L3 cache"),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release()}",
    }


def commit(root):
    """The commit, and whether the sources differ from it."""
    head = output("git", "-C", root, "rev-parse", "HEAD")
    changed = output("git", "-C", root, "status", "--porcelain", "--", *SOURCES)
    return {"commit": head, "changed": bool(changed)}


def versions(python):
    """The peers' versions, and the compiler's."""
    script = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version(), **{{p: version(p) for p in {PACKAGES!r}}}}}))"
    )
    found = json.loads(output(python, "-c", script))
    return {**found, "rustc": output("rustc", "--version").split()[1]}


def record(found, binary, commit, out):
    """Prints what was found, with what and where, as JSON; `out`: where it goes as well."""
    text = json.dumps(
        {
            **found,
            "binary_sha256": sha256(binary),
            **commit,
            "machine": describe(),
            "date": now(),
        },
        indent=2,
    )
    print(text)
    if out:
        out.write_text(text + "\n")


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def busy_cores():
    """How many cores are at work now, whoever's: this script itself sleeps meanwhile."""

    def times():
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        idle = fields[3] + fields[4]
        return sum(fields) - idle, sum(fields)

    used, total = times()
    time.sleep(0.5)
    used_after, total_after = times()
    return os.cpu_count() * (used_after - used) / max(1, total_after - total)


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
