#!/usr/bin/env bash
# Gets nvcc from PyPI into the target folder, where build.rs finds it: pip and a C++ compiler are all that it needs.
# All parts are of one release: a newer crt does not fit an older nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."

release=13.0
target=${CARGO_TARGET_DIR:-target}
parts=(nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl)
if ! "$target/nvcc/nvidia/cu13/bin/nvcc" --version 2>/dev/null | grep -q "release $release"; then
    python3 -m venv "$target/nvcc-pip"
    "$target/nvcc-pip/bin/pip" install --quiet --disable-pip-version-check --upgrade --target "$target/nvcc" \
        "${parts[@]/%/==$release.*}"
    rm -r "$target/nvcc-pip"
fi
touch "$target/nvcc.stamp"
"$target/nvcc/nvidia/cu13/bin/nvcc" --version | grep release
