"""What `retrack neighbors` finds in the folders of make_copies.py, as a table.

    python measure.py RETRACK FOLDERS
"""

import json
import subprocess
import sys
import time
from pathlib import Path

retrack, folders = sys.argv[1], Path(sys.argv[2])
print("| copies | found | false alarms | seconds |\n|---|---|---|---|")
for folder in sorted(path for path in folders.iterdir() if path.is_dir()):
    wanted = folder.with_suffix(".txt")
    count = len(wanted.read_text().splitlines())
    start = time.monotonic()
    command = [retrack, "-q", "neighbors", "--data", folder, "--forget", f"@{wanted}", "--neighbors", "1", "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["near_copies"]
    seconds = time.monotonic() - start
    own = sorted(path.name for path in folder.iterdir())
    right = [near for near in found if near["name"] == f"COPY-{own[near['of']]}"]
    name = folder.with_suffix(".name").read_text()
    copies = sum(path.startswith("COPY-") for path in own)
    share = f"{len(right)} of {copies}" if copies else "-"
    print(f"| {name} | {share} | {len(found) - len(right)} for {count} pictures | {seconds:.1f} |", flush=True)
