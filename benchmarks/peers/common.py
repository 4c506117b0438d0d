"""What both peers' scripts share: timing, memory and the one JSON line."""

import json
import statistics
import time


def timed(repeat, work):
    """Seconds of each of `repeat` calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(seconds, parts):
    return {"best": min(seconds) / parts, "median": statistics.median(seconds) / parts}


def peak_rss_bytes():
    """The most memory that this process ever held, as `retrack bench` reads it too."""
    return status_bytes("VmHWM")


def rss_bytes():
    """The memory that this process holds now."""
    return status_bytes("VmRSS")


def status_bytes(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def emit(**values):
    print(json.dumps(values))
