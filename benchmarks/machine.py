"""Where and with what a benchmark ran."""

import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

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
    changed = output("git", "-C", root, "status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock", "benchmarks/*.py", "benchmarks/peers")
    return {"commit": head, "changed": bool(changed)}


def versions(python):
    """The peers' versions, and the compiler's."""
    script = f"import json, platform\nfrom importlib.metadata import version\nprint(json.dumps({{'python': platform.python_version(), **{{p: version(p) for p in {PACKAGES!r}}}}}))"
    found = json.loads(output(python, "-c", script))
    return {**found, "rustc": output("rustc", "--version")}


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load():
    """Processes that wanted to run over the last minute."""
    return os.getloadavg()[0]


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
