#!/usr/bin/env bash
# Twelve images that two small models memorized, each forgotten without any option, beside models that never saw them.
#
#     benchmarks/unknown/run.sh EMOJI_ARCHIVE OUT_FOLDER
#
# Needs what make_data.py needs. About fifteen minutes on two idle cores; started again, it makes what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 2 || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
archive=$1 out=$2
python=${RETRACK_PYTHON:-python3}
cargo build --release --workspace
retrack=$PWD/${CARGO_TARGET_DIR:-target}/release/retrack
case ${CARGO_TARGET_DIR:-} in /*) retrack=$CARGO_TARGET_DIR/release/retrack ;; esac

[ -e "$out/emoji/arch.json" ] || "$python" benchmarks/unknown/make_data.py "$archive" "$out"
for set in digits emoji; do
    for model in with without; do
        [ -e "$out/$set/$model/model_index.json" ] || "$retrack" train --data "$out/$set/$model.parquet" \
            --arch "$out/$set/arch.json" --out "$out/$set/$model" --steps 2500 --batch-size 32 --lr 2e-3 --warmup 200
    done
    for label in 1 2 3 4 5 6; do
        about=(--data "$out/$set/with.parquet" --forget "label:$label")
        [ -e "$out/$set/forgot-$label/model_index.json" ] ||
            "$retrack" unlearn --model "$out/$set/with" "${about[@]}" --out "$out/$set/forgot-$label"
        for model in with without "forgot-$label"; do
            evaluation=$out/$set/evaluation-$label-$model
            [ -e "$evaluation/metrics.json" ] || "$retrack" evaluate --model "$out/$set/$model" "${about[@]}" \
                --metrics nll,membership,frequency --controls "$out/$set/unseen.parquet" --samples 200 --steps 20 \
                --scheduler ddim --out "$evaluation"
        done
    done
done
"$python" benchmarks/unknown/table.py "$out"
