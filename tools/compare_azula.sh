#!/usr/bin/env bash
# One MMPS step of diem against azula on PyTorch: same network, same machine, the two alternating. Prints a Markdown table
# of the median seconds per image, and the median of the rounds' ratios with the smallest and the largest: a machine that
# slows down between two rounds slows both sides of a round.
#
#   tools/compare_azula.sh                    2 threads, 3 rounds
#   THREADS=4 ROUNDS=5 tools/compare_azula.sh
#   PYTHON=python3 tools/compare_azula.sh     a Python that has torch and azula; without it, one is set up in target/peer
set -euo pipefail
cd "$(dirname "$0")/.."
THREADS=${THREADS:-2}
ROUNDS=${ROUNDS:-3}
PYTHON=${PYTHON:-python3}

if ! "$PYTHON" -c 'import torch, azula' 2>/dev/null; then
    echo "setting up PyTorch and azula in target/peer" >&2
    [ -x target/peer/bin/python ] || "$PYTHON" -m venv target/peer
    PYTHON=target/peer/bin/python
    "$PYTHON" -c 'import torch, azula' 2>/dev/null || "$PYTHON" -m pip install --quiet torch azula
fi
cargo build --release --quiet
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# seconds per image of one step: model, batch, iterations
azula() {
    "$PYTHON" tools/peers/bench_azula.py --model "$1" --batch "$2" --iterations "$3" --threads "$THREADS" |
        awk '/^mmps/ { print $NF }'
}
diem() {
    target/release/diem bench --model "$1" --init-seed 0 --batch "$2" --iterations "$3" --threads "$THREADS" \
        --json "$folder/bench.json" >&2
    "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["seconds_per_image"])' "$folder/bench.json"
    rm "$folder/bench.json"
}
median() {
    sort -g | awk '{ x[NR] = $1 } END { print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

"$PYTHON" -c 'import azula, platform, torch
print(f"azula {azula.__version__}, PyTorch {torch.__version__}, {platform.machine()}")'
echo "$THREADS threads, median of $ROUNDS alternating rounds, float32"
echo
echo "| network | batch | MMPS iterations | azula, s/image | diem, s/image | ratio | smallest to largest |"
echo "|---|---|---|---|---|---|---|"
for case in "cifar 4 1" "cifar 4 3" "small 16 1"; do
    read -r model batch iterations <<<"$case"
    : >"$folder/azula" && : >"$folder/diem"
    for _ in $(seq "$ROUNDS"); do
        azula "$model" "$batch" "$iterations" >>"$folder/azula"
        diem "$model" "$batch" "$iterations" >>"$folder/diem"
    done
    paste "$folder/azula" "$folder/diem" | awk '{ print $1 / $2 }' | sort -g >"$folder/ratio"
    printf '| %s | %d | %d | %.4f | %.4f | %.2f | %.2f to %.2f |\n' "$model" "$batch" "$iterations" \
        "$(median <"$folder/azula")" "$(median <"$folder/diem")" "$(median <"$folder/ratio")" \
        "$(head -1 "$folder/ratio")" "$(tail -1 "$folder/ratio")"
done
