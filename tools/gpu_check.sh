#!/usr/bin/env bash
# What a GPU says to all this: tests, check, speed next to PyTorch's, sanitizers, in one call of less than 8 minutes.
#
#   tools/gpu_check.sh --build   where cargo is: gathers in target/gpu_check all that the other machine needs
#   ./gpu_check.sh               in that folder, where the GPU is, and Python with PyTorch: leaves report.md, results.json and
#                                logs in $OUT, or gpu_check_out; fails unless everything passed
#
#   PARTS="device tests" ./gpu_check.sh     these parts alone
#   DEVICE=cuda:1 BATCH=64 ./gpu_check.sh   another GPU, less memory
set -uo pipefail

# name:log:seconds at most; the most valuable first
PLAN="device:device:20 tests:tests:120 check_f32:check:40 check_bf16:check:40 step_bf16:bench:60 ops_bf16:bench:90
    sample:check:75 peer_f32:peers:45 peer_bf16:peers:45 step_f32:bench:40 memcheck:sanitizers:60 racecheck:sanitizers:60
    peer_compile:peers:90"
SECONDS_IN_ALL=460
SECONDS_OF_A_TEST=60
# Sanitizers are slow: every kind of kernel, at small sizes.
SANITIZED="conv2d::linear_layers attn_block::value_and_gradient wgmma::convolutions_and_linear_layers
    channel_norm::parameter_gradients_add_up sampling::conjugate_gradient_iterations sampling::the_mask_is_part_of_the_iteration
    vector::dots_accumulate_in_f64 mlp::values_gradients_and_what_is_kept training::the_norm_of_arrays_of_many_lengths
    record::replayed_steps_have_the_bits_of_eager_ones"
AZULA=azula==0.11.1

build() {
    set -e
    cd "$(dirname "$0")/.."
    local target=${CARGO_TARGET_DIR:-target} tests listed name bytes
    local folder=$target/gpu_check
    [ -n "${DIEM_NVCC:-}" ] || tools/install_nvcc.sh
    rm -rf "$folder"
    mkdir -p "$folder/peers" "$folder/wheels"
    cargo build --release
    strip -o "$folder/diem" "$target/release/diem" # now: the tests build it again, with the emulator in it
    tests=$(cargo test --release --test cuda --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\/cuda-[^"]*\)".*/\1/p')
    strip -o "$folder/cuda_tests" "$tests"
    listed=$("$tests" --list)
    for name in $SANITIZED; do
        grep -qx "$name: test" <<<"$listed" || { echo "there is no test $name" && return 1; }
    done
    cp tools/gpu_check.sh tools/gpu_report.py assets/fashion-75.safetensors assets/fashion-test.npy "$folder"
    cp tools/peers/bench_azula.py tools/peers/unet_torch.py "$folder/peers"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder/wheels" "$AZULA"
    {
        echo "commit: $(git rev-parse HEAD)$(git diff --quiet HEAD || echo ', changed')"
        "$folder/diem" info --device cpu | sed -n 's/^kernels  */kernels: /p'
        echo "glibc: $(objdump -T "$folder/diem" "$folder/cuda_tests" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1) or later"
    } | tee "$folder/manifest.txt"
    gzip -9 "$folder/diem" "$folder/cuda_tests" # by two thirds
    bytes=$(du -sb "$folder" | cut -f1)
    echo "$((bytes >> 20)) MiB; there: cd $folder && ./gpu_check.sh"
    if grep -q "^kernels: none" "$folder/manifest.txt" || ((bytes > 40 << 20)); then
        echo "no kernels, or more than 40 MiB"
        return 1
    fi
}

# Every part, with what is left of the time; the report is written again after each.
run() {
    local out part name log limit left start rc failed=0
    SELF=$(realpath "$0")
    out=$(realpath -m "${OUT:-gpu_check_out}")
    cd "$(dirname "$SELF")"
    [ -e manifest.txt ] || cd ../target/gpu_check || exit 2
    [ ! -e diem.gz ] || gunzip -kf diem.gz cuda_tests.gz
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    export SELF WORK DEVICE=${DEVICE:-cuda} BATCH=${BATCH:-256}
    mkdir -p "$out" && rm -f "$out"/{report.md,results.json,*.log}
    for part in $PLAN; do
        IFS=: read -r name log limit <<<"$part"
        [[ " ${PARTS:-$name} " == *" $name "* ]] || continue
        left=$((SECONDS_IN_ALL - SECONDS))
        ((limit < left)) || limit=$left
        start=$SECONDS rc=none
        if ((limit > 5)); then
            timeout -k 5 "$limit" "$SELF" --part "$name" >"$WORK/$name.log" 2>&1
            rc=$?
        fi
        [ "$rc" = 0 ] || failed=1
        printf '%s\t%s\t%s\t%s\n' "$name" "$rc" $((SECONDS - start)) "$limit" | tee -a "$WORK/parts.tsv"
        { echo "=== $name" && cat "$WORK/$name.log" && tail -n 60 "$WORK/tests.d/$name"/*; } >>"$out/$log.log" 2>/dev/null
        python3 gpu_report.py "$WORK" "$out" || cat "$WORK/parts.tsv" >>"$out/report.md"
    done
    cat "$out/report.md"
    return $failed
}

# Where wheels and the toolkit put CUDA's libraries; libcuda is the driver's. cuBLAS is looked for without a version.
find_libraries() {
    local site folder library found=$WORK/lib
    site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$WORK/lib"
    for folder in /usr/local/cuda/lib64 "$site"/nvidia/*/lib; do
        [ -d "$folder" ] || continue
        found+=:$folder
        for library in "$folder"/libcublas*.so.*; do
            [ -e "$library" ] && ln -sf "$library" "$WORK/lib/$(basename "${library%%.so.*}").so"
        done
    done
    export LD_LIBRARY_PATH=$found:${LD_LIBRARY_PATH:-} PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer
}

part_device() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem --format=csv,noheader
    nvidia-smi
    cat manifest.txt
    ldd --version | head -1
    ./diem info --device "$DEVICE" && ./diem info --kernels
}

part_tests() {
    ./cuda_tests --list --format terse | sed -n 's/: test$//p' | each_test
}
part_memcheck() { printf '%s\n' $SANITIZED | each_test compute-sanitizer --tool memcheck --error-exitcode 9; }
part_racecheck() { printf '%s\n' $SANITIZED | each_test compute-sanitizer --tool racecheck --error-exitcode 9; }

# Tests, one a line, through a tool if there is one. Each has a process of its own: a fault breaks the device for the rest of
# a process, and what hangs can be ended.
each_test() {
    local folder=$WORK/tests.d/$PART
    mkdir -p "$folder"
    tee "$folder/expected" | xargs -P 6 -I{} "$SELF" --test {} "$folder" "$@" | tee "$folder/lines"
    [ "$(grep -c '^passed\|^skipped' "$folder/lines")" = "$(wc -l <"$folder/expected")" ]
}

# A test, the folder for what it prints, the tool: one line, "passed", "skipped" or "failed", name, why.
one_test() {
    local name=$1 log=$2/${1//::/.}.log said
    shift 2
    DIEM_TEST_DEVICE=$DEVICE RUST_BACKTRACE=0 timeout --foreground -k 5 $SECONDS_OF_A_TEST \
        "$@" ./cuda_tests --exact "$name" --test-threads=1 --nocapture >"$log" 2>&1
    case $? in
        0) said=$(sed -n 's/^\(test .* \.\.\. \)\{0,1\}skipped: //p; s/^test .* ignored, //p' "$log" | head -1)
            if [ -n "$said" ]; then
                echo "skipped $name: $said"
            elif grep -q '^test result: ok. 1 passed' "$log"; then
                echo "passed $name"
            else
                echo "failed $name: there is no such test"
            fi ;;
        124 | 137) echo "failed $name: does not end within $SECONDS_OF_A_TEST s" ;;
        127) echo "failed $name: there is no $1" ;;
        *) said=$(grep -m1 '^========= .*\(Invalid\|Error\|Race\|hazard\)' "$log" || grep -A1 -m1 'panicked at' "$log" | tail -1)
            echo "failed $name: ${said:-$(tail -1 "$log")}" ;;
    esac
}

part_check_f32() { ./diem check --device "$DEVICE"; }
part_check_bf16() { ./diem check --device "$DEVICE" --precision bf16; }

bench() { ./diem bench --device "$DEVICE" --json "$WORK/$PART.json" "$@"; }
part_ops_bf16() { bench --precision bf16; }
part_step_bf16() { bench --precision bf16 --model cifar --init-seed 0 --batch "$BATCH"; }
part_step_f32() { bench --precision f32 --model cifar --init-seed 0 --batch "$BATCH"; }

# 8 draws of each of 32 images with a quarter of their pixels, on the GPU and on the CPU.
part_sample() {
    local run=(./diem sample --model fashion-75.safetensors --observations "$WORK/observed.npz" --operator mask
        --iterations 2 --sampler 2m-sde --steps 32 --draws 8)
    ./diem observe --input fashion-test.npy --out "$WORK/observed.npz" --keep 0.25
    "${run[@]}" --device "$DEVICE" --precision bf16 --out "$WORK/sample_bf16"
    "${run[@]}" --device "$DEVICE" --precision f32 --out "$WORK/sample_f32"
    python3 gpu_report.py --samples "$WORK" fashion-test.npy # in case that the CPU takes too long
    "${run[@]}" --device cpu --out "$WORK/sample_cpu"
    python3 gpu_report.py --samples "$WORK" fashion-test.npy
}

# A wheel is a zip file, which Python imports from.
peer() {
    PYTHONPATH=$(echo wheels/*.whl) python3 peers/bench_azula.py --model cifar --batch "$BATCH" --device "${DEVICE/emulated/cpu}" "$@"
}
part_peer_f32() { peer; }
part_peer_bf16() { peer --bf16; }
part_peer_compile() { peer --bf16 --compile; }

case ${1:-} in
    --build) build ;;
    --part)
        export PART=$2
        [[ $PART == peer_* ]] || find_libraries
        "part_$PART"
        ;;
    --test) shift && one_test "$@" ;;
    '') run ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
