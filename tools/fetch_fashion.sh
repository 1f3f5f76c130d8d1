#!/usr/bin/env bash
# Gets Fashion-MNIST (MIT, Zalando SE) from Debian's package dataset-fashion-mnist, without root, into a folder:
#
#     tools/fetch_fashion.sh [FOLDER]            # target/fashion-mnist, if none is named
#     diem observe --input FOLDER/train-images-idx3-ubyte.gz --pad 2 --out obs.npz
set -euo pipefail
folder=${1:-$(cd "$(dirname "$0")/.." && pwd)/target/fashion-mnist}

fail() {
    echo "fetch_fashion.sh: $1" >&2
    exit 1
}

check() {
    (cd "$folder" 2>/dev/null && sha256sum --check --quiet --status) <<'SUMS'
cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa  t10k-images-idx3-ubyte.gz
8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05  t10k-labels-idx1-ubyte.gz
b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7  train-images-idx3-ubyte.gz
0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056  train-labels-idx1-ubyte.gz
SUMS
}

if check; then
    echo "$folder: all four files are there"
    exit
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "expected apt-get and dpkg-deb (Debian, Ubuntu); elsewhere put the four files train- and t10k-*-ubyte.gz into $folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && chmod 755 . && apt-get download --quiet=2 dataset-fashion-mnist >log 2>&1) ||
    fail "apt-get download dataset-fashion-mnist: $(grep -m 1 '^E:' "$work/log" || echo failed) (apt-get update first?)"
dpkg-deb --extract "$work"/dataset-fashion-mnist_*.deb "$work/package" 2>/dev/null || fail "the package cannot be unpacked"
{ mkdir -p "$folder" && cp "$work"/package/usr/share/datasets/fashion-mnist/*-ubyte.gz "$folder"; } 2>/dev/null ||
    fail "$folder: the files cannot be written"
check || fail "$folder: the files are not those whose sums this script has"
echo "$folder: 60,000 + 10,000 images of 28 x 28, and their labels"
