#!/usr/bin/env bash
# The MNIST T-shirt experiment on the shipped base, from nothing: about three hours on two cores.
#
#     benchmarks/mnist-tshirt/run.sh OUT_FOLDER
#
# Stopped and started again, it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 1 || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
mkdir -p "$out"
cargo build --release --workspace
retrack=${CARGO_TARGET_DIR:-target}/release/retrack
data=assets/digits.parquet

# A model that never saw the T-shirt, by the recipe of the base (assets/README.md).
if [ ! -e "$out/retrained/model_index.json" ]; then
    resume=
    if [ -e "$out/retrained/run/unfinished" ]; then resume=--resume; fi
    "$retrack" train --data $data --exclude label:10 --arch assets/base-arch.json --steps 6000 --batch-size 64 \
        --lr 8e-4 --warmup 300 --seed 0 --out "$out/retrained" $resume
fi

# T-shirts that no model saw, for the membership score.
benchmarks/mnist-tshirt/make_controls.py "$out/controls"

"$retrack" experiment mnist-tshirt --config benchmarks/mnist-tshirt/settings.toml --seeds 0-2 \
    --model assets/base-model --data $data --retrained "$out/retrained" \
    --controls "$out/controls/controls-images-idx3-ubyte" --out "$out/experiment"
cp "$out/experiment/summary.md" "$out/experiment/summary.json" benchmarks/mnist-tshirt/
