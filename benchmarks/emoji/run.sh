#!/usr/bin/env bash
# A text-to-image model memorizes a teapot and forgets it: everything from the pictures to the figure. About two hours on
# two cores, nearly all of them for the model.
#
#     pip install diffusers==0.42.1 transformers==5.23.0 torch==2.15.0 pillow
#     benchmarks/emoji/run.sh OUT_FOLDER [SSCD.onnx]
#
# Stopped and started again, it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -ge 1 || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 sscd=${2:-}
python=${RETRACK_PYTHON:-python3}
mkdir -p "$out"
cargo build --release --workspace
retrack=${CARGO_TARGET_DIR:-target}/release/retrack

if [ ! -e "$out/model.png" ]; then
    "$python" benchmarks/emoji/make_model.py --out "$out"
fi
if [ ! -e "$out/forgotten/model_index.json" ]; then
    "$retrack" unlearn --model "$out/model" --data "$out/data" --forget "$out/data/teapot.png" \
        --captions "$out/data/captions.json" --lambda 0.2 --lr 1e-4 --steps 200 --batch-size 8 --accumulate 1 \
        --force --out "$out/forgotten"
fi
"$retrack" evaluate --model "$out/forgotten" --baseline "$out/model" --data "$out/data" --forget "$out/data/teapot.png" \
    --prompt teapot --modified-prompt "red apple" --modified-prompt "hot beverage" --modified-prompt pineapple \
    --modified-prompt doughnut --modified-prompt avocado --modified-prompt "slice of pizza" \
    ${sscd:+--sscd "$sscd"} --show-forgotten --force --out "$out/evaluation"
# Both folders as diffusers reads them.
"$python" benchmarks/emoji/make_figure.py "$out/model" "$out/forgotten" "$out/figure.png"
