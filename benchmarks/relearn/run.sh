#!/usr/bin/env bash
# Does the T-shirt come back? The shipped base, unlearned in two ways, beside a model that never saw it.
#
#     benchmarks/relearn/run.sh OUT_FOLDER
#
# Half an hour on two idle cores, and three hours more where OUT_FOLDER/retrained is not there yet: `run.sh` of
# benchmarks/mnist-tshirt makes the same one. Stopped and started again, it goes on. RETRACK names another program.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 1 || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
mkdir -p "$out"
if [ -z "${RETRACK-}" ]; then
    cargo build --release --workspace
    RETRACK=${CARGO_TARGET_DIR:-target}/release/retrack
fi
data=assets/digits.parquet

if [ ! -e "$out/retrained/model_index.json" ]; then
    resume=
    if [ -e "$out/retrained/run/unfinished" ]; then resume=--resume; fi
    "$RETRACK" train --data $data --exclude label:10 --arch assets/base-arch.json --steps 6000 --batch-size 64 \
        --lr 8e-4 --warmup 300 --seed 0 --out "$out/retrained" $resume
fi
if [ ! -e "$out/controls" ]; then
    benchmarks/mnist-tshirt/make_controls.py "$out/controls"
fi

unlearn() { # name, settings
    local name=$1
    shift
    if [ ! -e "$out/$name/model_index.json" ]; then
        "$RETRACK" unlearn --model assets/base-model --data $data --forget label:10 --seed 0 --force --out "$out/$name" "$@"
    fi
}
unlearn published --preset mnist-tshirt --config benchmarks/mnist-tshirt/settings.toml --no-report
unlearn calibrated

evaluate() { # name, model, what it is compared with
    local name=$1 model=$2
    shift 2
    if [ ! -e "$out/$name/metrics.json" ]; then
        "$RETRACK" evaluate --model "$model" --data $data --forget label:10 --metrics relearn --seed 0 \
            --out "$out/$name" "$@"
    fi
}
for model in base published calibrated retrained; do
    folder=$out/$model
    if [ $model = base ]; then folder=assets/base-model; fi
    evaluate "$model-look-alikes" "$folder"
    evaluate "$model-controls" "$folder" --controls "$out/controls/controls-images-idx3-ubyte"
done
benchmarks/relearn/table.py "$out" | tee benchmarks/relearn/table.md
