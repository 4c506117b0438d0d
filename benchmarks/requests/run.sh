#!/usr/bin/env bash
# Ten requests one after another on one model, or as many as COUNT says (20 at most), each without any option; with the forgotten
# pictures still in the data, and without them.
#
#     benchmarks/requests/run.sh EMOJI_ARCHIVE OUT_FOLDER [COUNT]
#
# Needs what ../unknown/make_data.py needs. About twenty minutes on two idle cores; started again, it makes what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
test $# -eq 2 || test $# -eq 3 || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
archive=$1 out=$2 count=${3:-10}
python=${RETRACK_PYTHON:-python3}
retrack=${RETRACK:-}
if [ -z "$retrack" ]; then
    cargo build --release --workspace
    retrack=$PWD/${CARGO_TARGET_DIR:-target}/release/retrack
    case ${CARGO_TARGET_DIR:-} in /*) retrack=$CARGO_TARGET_DIR/release/retrack ;; esac
fi

[ -e "$out/emoji/arch.json" ] || "$python" benchmarks/unknown/make_data.py "$archive" "$out" "$count"
[ -e "$out/emoji/retained.txt" ] || "$python" benchmarks/requests/take_out.py "$out" "$count"
for set in digits emoji; do
    here=$out/$set
    for model in with without; do
        [ -e "$here/$model/model_index.json" ] || "$retrack" train --data "$here/$model.parquet" \
            --arch "$here/arch.json" --out "$here/$model" --steps 2500 --batch-size 32 --lr 2e-3 --warmup 200
    done
    for series in kept deleted; do
        model=$here/with
        for label in $(seq "$count"); do
            data=$here/with.parquet
            [ $series = kept ] || data=$here/left-$label.parquet
            next=$here/$series-$label
            [ -e "$next/model_index.json" ] ||
                "$retrack" unlearn --model "$model" --data "$data" --forget "label:$label" --out "$next"
            model=$next
        done
    done
    for model in with without "kept-$count" "deleted-$count"; do
        # What became of twenty retained images.
        evaluation=$here/evaluation-retained-$model
        [ -e "$evaluation/metrics.json" ] || "$retrack" evaluate --model "$here/$model" --data "$here/with.parquet" \
            --forget "@$here/retained.txt" --metrics nll,membership --controls "$here/unseen.parquet" --out "$evaluation"
        for label in $(seq "$count"); do
            evaluation=$here/evaluation-$label-$model
            [ -e "$evaluation/metrics.json" ] || "$retrack" evaluate --model "$here/$model" --data "$here/with.parquet" \
                --forget "label:$label" --metrics nll,membership,frequency --controls "$here/unseen.parquet" --samples 200 \
                --steps 20 --scheduler ddim --out "$evaluation"
        done
    done
done
"$python" benchmarks/requests/table.py "$out" "$count"
