#!/usr/bin/env bash
# A thousand images at once, of which the model knows thirty.
#
#     benchmarks/many/run.sh OUT_FOLDER
#
# Needs what make_data.py needs. About half an hour on two idle cores; started again, it makes what is missing. RETRACK names a
# binary to use in place of this tree's.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 1 || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
python=${RETRACK_PYTHON:-python3}
retrack=${RETRACK:-}
if [ -z "$retrack" ]; then
    cargo build --release --workspace
    retrack=$PWD/${CARGO_TARGET_DIR:-target}/release/retrack
    case ${CARGO_TARGET_DIR:-} in /*) retrack=$CARGO_TARGET_DIR/release/retrack ;; esac
fi

[ -e "$out/arch.json" ] || "$python" benchmarks/many/make_data.py "$out"
for model in with without; do
    [ -e "$out/$model/model_index.json" ] || "$retrack" train --data "$out/$model.parquet" --arch "$out/arch.json" \
        --out "$out/$model" --steps 4000 --batch-size 64 --lr 2e-3 --warmup 200
done
[ -e "$out/forgot/model_index.json" ] || "$retrack" unlearn --model "$out/with" --data "$out/with.parquet" \
    --forget "@$out/forget.txt" --out "$out/forgot" -v
for model in with without forgot; do
    [ -e "$out/evaluation-$model/metrics.json" ] || "$retrack" evaluate --model "$out/$model" --data "$out/with.parquet" \
        --forget "@$out/planted.txt" --controls "$out/unseen.parquet" --metrics nll,membership,frequency --samples 100 \
        --steps 20 --scheduler ddim --out "$out/evaluation-$model"
done
"$python" - "$out" <<'P'
import csv, json, sys
from collections import Counter
from pathlib import Path

out = Path(sys.argv[1])
planted = {line.strip().removeprefix("row:") for line in (out / "planted.txt").open()}
rows = list(csv.DictReader((out / "forgot/run/images.csv").open()))
for name, of in ("planted", True), ("others", False):
    found = Counter((row["before"], row["after"] or "not led") for row in rows if (row["row"] in planted) == of)
    print(name, dict(found))
for model in "with", "forgot", "without":
    scores = json.loads((out / f"evaluation-{model}/metrics.json").read_text())["model"]["scores"]
    print(model, {score["name"]: round(score["value"], 3) for score in scores})
P
