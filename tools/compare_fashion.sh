#!/usr/bin/env bash
# The paper's table 1 in small, on Fashion-MNIST at 32 x 32: EM with Tweedie's covariance, with each heuristic in its place, and with
# fewer pixels deleted; beside them the Gaussian prior alone, and the same network trained on the clean images. Each is a run of
# `diem fit configs/fashion-compare.toml` with one line changed; an interrupted script goes on where it was. Prints a Markdown table.
#
#   tools/compare_fashion.sh [FOLDER]          # runs into FOLDER, target/compare-fashion by default
#   LAPS=8 tools/compare_fashion.sh            # more laps; runs that are there go on
#   FASHION=/folder tools/compare_fashion.sh   # where tools/fetch_fashion.sh has put, or will put, the images
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/target/compare-fashion}
FASHION=${FASHION:-$root/target/fashion-mnist}
LAPS=${LAPS:-3}
COUNT=1088 # of which fashion-compare.toml holds out 64
EPOCHS=20  # in a lap

(cd "$root" && cargo build --release --quiet)
"$root"/tools/fetch_fashion.sh "$FASHION" >&2
diem=$root/target/release/diem
mkdir -p "$out" && cd "$out"

# the same images and noise at every share of pixels
for keep in 0.25 0.5 0.75; do
    [ -e "keep-$keep.npz" ] || "$diem" observe --input "$FASHION/train-images-idx3-ubyte.gz" --pad 2 --count $COUNT \
        --keep $keep --noise 1e-3 --out "keep-$keep.npz" --truth clean.npy --force >&2
done

# a run: its name, covariance, share of pixels, laps, and options of diem fit; one that diverges has said why
fit() {
    sed -e "s/keep-0.25/keep-$3/; s/^covariance = .*/covariance = \"$2\"/; s/^count = .*/count = $4/" \
        "$root/configs/fashion-compare.toml" >"$1.toml"
    "$diem" fit "$1.toml" --out "$1" "${@:5}" >&2 || [ $? = 3 ]
}
for covariance in tweedie prior unit sigma zero; do
    fit "$covariance" "$covariance" 0.25 "$LAPS"
done
fit half tweedie 0.5 "$LAPS"
fit three-quarters tweedie 0.75 "$LAPS"

echo '{"kind": "unet", "in_channels": 1, "out_channels": 1, "channels": [32, 64], "blocks": [1, 1], "heads": [0, 4], "emb": 64}' >unet.json
"$diem" train --data clean.npy --held-out 64 --model unet.json --out "trained-$LAPS" --epochs $((EPOCHS * LAPS)) --batch 64 \
    --lr 1e-3 --lr-end 1e-5 --schedule linear --ema 0.99 --dropout 0 >&2
fit "clean-$LAPS" tweedie 0.25 0 --warm-start "trained-$LAPS/model.safetensors"

# a row of the table: what it is, its run, and the lap, the last by default
row() {
    awk -v name="$1" -v lap="${3:-}" '
        function number(key) {
            return match($0, "\"" key "\":[-+.e0-9]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "-"
        }
        /"phase":"lap"/ && (lap == "" || number("lap") == lap) { l = number("lap"); f = number("frechet"); p = number("psnr"); c = number("crps") }
        END {
            if (l == "") print "| " name " | stopped | - | - | - |"
            else printf "| %s | %s | %.1f | %.2f | %.4f |\n", name, l, f, p, c
        }' "$2/metrics.jsonl"
}
echo "$COUNT images, 64 of them held out; FD-garments of 1,000 samples of the prior against the $COUNT; PSNR of one draw, in dB"
echo
echo "| covariance, or prior | lap | FD-garments | PSNR | CRPS |"
echo "|---|---|---|---|---|"
row "the Gaussian prior alone" tweedie 0
for covariance in tweedie prior unit sigma zero; do
    row "$covariance" "$covariance"
done
row "tweedie, 50% deleted" half
row "tweedie, 25% deleted" three-quarters
row "the network trained on clean images" "clean-$LAPS"
