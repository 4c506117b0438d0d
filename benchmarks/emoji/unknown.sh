#!/usr/bin/env bash
# The teapot forgotten without any option, by all weights and by an adapter, beside a model that never saw it. After run.sh; another hour
# and a half of one core, nearly all of it for that model.
#
#     benchmarks/emoji/unknown.sh OUT_FOLDER
#
# Stopped and started again, it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 1 || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
python=${RETRACK_PYTHON:-python3}
cargo build --release --workspace
retrack=${CARGO_TARGET_DIR:-target}/release/retrack

[ -e "$out/reference.png" ] || "$python" benchmarks/emoji/make_model.py --out "$out" --reference
about=(--data "$out/data" --captions "$out/data/captions.json")
unlearn() {
    [ -e "$out/$1/model_index.json" ] || "$retrack" unlearn --model "$out/model" "${about[@]}" --forget "$out/data/teapot.png" \
        --out "$out/$1" "${@:2}"
}
unlearn unknown
unlearn adapter --train lora
[ -e "$out/merged/model_index.json" ] || "$retrack" merge --model "$out/adapter" --out "$out/merged"
ls "$out/data"/*.png | grep -v teapot | sed -n '1~6p' > "$out/retained.txt"
for model in model unknown merged reference; do
    [ -e "$out/teapot-$model/metrics.json" ] || "$retrack" evaluate --model "$out/$model" "${about[@]}" --forget "$out/data/teapot.png" \
        --prompt teapot --metrics cluster,nll,membership --controls "$out/unseen" --controls-captions "$out/unseen/captions.json" \
        --out "$out/teapot-$model"
    [ -e "$out/retained-$model/metrics.json" ] || "$retrack" evaluate --model "$out/$model" "${about[@]}" \
        --forget "@$out/retained.txt" --prompt food --metrics nll,membership --controls "$out/unseen" \
        --controls-captions "$out/unseen/captions.json" --out "$out/retained-$model"
done
"$python" benchmarks/emoji/table.py "$out"
