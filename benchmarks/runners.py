"""How a command is run and what is taken from it."""

import json
import os
import random
import shlex
import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

# What would change how one side runs: neither side gets it from the shell that it happens to be started from.
CLEARED = ("MALLOC_", "MIMALLOC_", "LD_PRELOAD", "RETRACK_SIMD", "RAYON_", "KMP_", "GOMP_", "OMP_", "MKL_")
CLEARED += ("OPENBLAS_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH_")


class Failed(Exception):
    """A command that did not do what it was run for."""

    @classmethod
    def command(cls, command, how, said):
        return cls(f"{shlex.join(map(str, command))}\n{how}:\n{said[-2000:]}")


class Runner:
    def __init__(self, binary, python, temp):
        self.binary, self.python, self.temp = Path(binary), Path(python), Path(temp)

    def environment(self, threads, cache=None):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(CLEARED)}
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            kept[key] = str(threads)
        kept["XDG_CACHE_HOME"] = str(cache or self.temp / "cache")
        kept["HF_HUB_OFFLINE"] = "1"
        return kept

    def command(self, command):
        names = {"RETRACK": str(self.binary), "PYTHON": str(self.python)}
        return [names.get(part, part.replace("TEMP", str(self.temp))) for part in command]

    def json(self, command, threads):
        """The JSON line that a command prints."""
        done = self.finished(command, threads)
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise Failed.command(self.command(command), "printed no JSON line", done.stdout) from None

    def wall(self, command, threads):
        """Seconds from start to end."""
        start = time.perf_counter()
        self.finished(command, threads)
        return {"seconds": time.perf_counter() - start}

    def finished(self, command, threads):
        done = subprocess.run(self.command(command), env=self.environment(threads), capture_output=True, text=True)
        if done.returncode:
            raise Failed.command(self.command(command), f"exited with {done.returncode}", done.stderr)
        return done

    def first_step(self, command, threads):
        """Seconds from the start of `retrack unlearn` until its first step begins.

        Its log says when that step had ended and how long it took. Nothing is cached from an earlier run.
        """
        out = self.temp / "out"
        shutil.rmtree(out, ignore_errors=True)
        events = out / "run" / "events.jsonl"
        with tempfile.TemporaryDirectory(dir=self.temp) as cache, tempfile.TemporaryFile() as errors:
            start = time.perf_counter()
            process = subprocess.Popen(
                self.command(command), env=self.environment(threads, cache), stdout=subprocess.DEVNULL, stderr=errors
            )
            try:
                while True:
                    # In this order: a process that ends just after its last line is not taken for one without it.
                    ended = process.poll() is not None
                    lines = events.read_text().splitlines(keepends=True) if events.exists() else []
                    if lines and lines[0].endswith("\n"):
                        seen = time.perf_counter() - start
                        break
                    if ended:
                        errors.seek(0)
                        said = errors.read().decode()
                        raise Failed.command(self.command(command), "ended before its first step", said)
                    time.sleep(0.001)
            finally:
                process.kill()
                process.wait()
        step = json.loads(lines[0])["seconds"]
        return {"seconds": seen - step, "first_step_seconds": step}

    def peak(self, command, threads):
        """Seconds, processor seconds and the most memory of a command, from the kernel's own account of it."""
        with tempfile.TemporaryDirectory(dir=self.temp) as cache, tempfile.TemporaryFile() as errors:
            start = time.perf_counter()
            process = subprocess.Popen(
                self.command(command), env=self.environment(threads, cache), stdout=subprocess.DEVNULL, stderr=errors
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                errors.seek(0)
                how = f"exited with {process.returncode}"
                raise Failed.command(self.command(command), how, errors.read().decode())
        return {
            "seconds": seconds,
            "processor_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_bytes": usage.ru_maxrss * 1024,
        }


def write_images(folder, count, side):
    """A folder of uncompressed PNG files of random pixels: on disk as large as in memory."""
    folder.mkdir(parents=True)
    source = random.Random(0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    for index in range(count):
        pixels = source.randbytes(3 * side * side)
        rows = b"".join(b"\0" + pixels[3 * side * y : 3 * side * (y + 1)] for y in range(side))
        data = chunk(b"IDAT", zlib.compress(rows, 0))
        (folder / f"{index:06}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
