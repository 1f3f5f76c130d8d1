#!/usr/bin/env bash
# One training step of diem against PyTorch: same network, same machine, the two alternating: loss, gradients, clipping, Adam,
# moving average. Prints a Markdown table of the median seconds per image and of the rounds' ratios.
#
#   tools/compare_train.sh                    2 threads, 3 rounds
#   THREADS=4 ROUNDS=5 tools/compare_train.sh
#   CASES="small 32" tools/compare_train.sh   networks and batches, by default "cifar 4,cifar 8,small 32"
#   PYTHON=python3 tools/compare_train.sh     a Python that has torch; without it, one is set up in target/peer
set -euo pipefail
cd "$(dirname "$0")/.."
THREADS=${THREADS:-2}
ROUNDS=${ROUNDS:-3}
CASES=${CASES:-cifar 4,cifar 8,small 32}
PYTHON=${PYTHON:-python3}

if ! "$PYTHON" -c 'import torch' 2>/dev/null; then
    echo "setting up PyTorch in target/peer" >&2
    [ -x target/peer/bin/python ] || "$PYTHON" -m venv target/peer
    PYTHON=target/peer/bin/python
    "$PYTHON" -c 'import torch' 2>/dev/null || "$PYTHON" -m pip install --quiet torch
fi
cargo build --release --quiet
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# seconds per image of one step: model, batch
torch() {
    "$PYTHON" tools/peers/bench_train.py --model "$1" --batch "$2" --threads "$THREADS" | awk '{ print $NF }'
}
diem() {
    target/release/diem bench --model "$1" --training --batch "$2" --threads "$THREADS" --json "$folder/bench.json" >&2
    "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["seconds_per_image"])' "$folder/bench.json"
    rm "$folder/bench.json"
}
median() {
    sort -g | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

"$PYTHON" -c 'import platform, torch
print(f"PyTorch {torch.__version__}, {platform.machine()}")'
echo "$THREADS threads, median of $ROUNDS alternating rounds, float32"
echo
echo "| network | batch | PyTorch, s/image | diem, s/image | ratio | smallest to largest |"
echo "|---|---|---|---|---|---|"
while read -r model batch; do
    : >"$folder/torch" && : >"$folder/diem"
    for _ in $(seq "$ROUNDS"); do
        torch "$model" "$batch" >>"$folder/torch"
        diem "$model" "$batch" >>"$folder/diem"
    done
    paste "$folder/torch" "$folder/diem" | awk '{ print $1 / $2 }' | sort -g >"$folder/ratio"
    printf '| %s | %d | %.4f | %.4f | %.2f | %.2f to %.2f |\n' "$model" "$batch" \
        "$(median <"$folder/torch")" "$(median <"$folder/diem")" "$(median <"$folder/ratio")" \
        "$(head -1 "$folder/ratio")" "$(tail -1 "$folder/ratio")"
done < <(tr ',' '\n' <<<"$CASES")
