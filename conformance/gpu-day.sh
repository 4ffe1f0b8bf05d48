#!/usr/bin/env bash
# What a day with a GPU is for: the instruction tests, the full suite of `assay`, and the benchmarks, from carried binaries.
#
#     conformance/gpu-day.sh pack DIR    builds them and copies them to DIR, with this script and gpu_peers.py
#     DIR/gpu-day.sh run DIR             runs them on the GPU of a machine without a Rust toolchain; results go to DIR/results
#     DIR/gpu-day.sh dry DIR             the same on the software GPU, with few cases and tiny sizes; DIR/results-dry
#
# SIZE=small|full chooses the benchmark's problems (full), SUITE=quick|full|extensive the cases of `assay` (full). Exit code 0:
# every step passed; 1: some did not, and which ones is said at the end; 2: no GPU, or a wrong call.
set -euo pipefail

refuse() {
    echo "gpu-day: $1" >&2
    exit 2
}

pack() {
    local root release
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    release=${CARGO_TARGET_DIR:-$root/target}/release
    (
        cd "$root"
        cargo build --release --locked -p tilewright-conformance -p tilewright-softgpu-driver -p tilewright-cuda \
            --lib --bin assay --example instructions --example gpu_bench
    )
    # The software GPU in a folder of its own: a real run must not come across it.
    mkdir -p "$1/softgpu"
    cp "$release/assay" "$release/examples/instructions" "$release/examples/gpu_bench" "$1/"
    cp "$release/libcuda.so" "$1/softgpu/"
    cp "$root/conformance/gpu-day.sh" "$root/conformance/gpu_peers.py" "$1/"
    git -C "$root" rev-parse HEAD >"$1/commit"
    echo "packed into $1"
}

failed=()
steps=()

# step NAME COMMAND …: what it says goes to NAME.log; its exit status counts.
step() {
    local name=$1 status=0 start=$SECONDS
    shift
    echo "== $name"
    "$@" >"$results/$name.log" 2>&1 || status=$?
    tail -n 5 "$results/$name.log"
    steps+=("| $name | $status | $((SECONDS - start)) |")
    if ((status != 0)); then
        failed+=("$name")
        echo "$name: exit status $status; see $results/$name.log" >&2
    fi
}

# The driver's own version, where something knows it.
driver() {
    nvidia-smi --query-gpu=driver_version --format=csv,noheader --id=0 2>/dev/null || echo "not known"
}

# Steps, seconds and figures on one page.
page() {
    echo "# GPU day, $(date -u +%Y-%m-%d)"
    echo
    echo "Commit $(cat "$1/commit"), $mode; driver: $(driver)."
    printf '\n| step | exit status | s |\n|---|---:|---:|\n'
    printf '%s\n' "${steps[@]}"
    local part
    for part in gpu_bench gpu_peers; do
        if [[ -f $results/$part.md ]]; then
            printf '\n## %s\n\n' "$part"
            cat "$results/$part.md"
        fi
    done
}

all() {
    local dir=$1 size=$2
    shift 2
    mkdir -p "$results"
    # Nothing of an earlier run may pass for this one's.
    rm -f "$results"/*.json "$results"/*.md "$results"/*.log
    step instructions "$dir/instructions" "$results/instructions.json"
    step assay "$dir/assay" run "$@" --json "$results/assay.json"
    step gpu_bench "$dir/gpu_bench" --size "$size" --json "$results/gpu_bench.json" --markdown "$results/gpu_bench.md"
    if [[ $mode == run ]] && python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        step gpu_peers python3 "$dir/gpu_peers.py" "$results/gpu_bench.json" "$results/gpu_peers.json" "$results/gpu_peers.md"
    else
        steps+=("| gpu_peers | not run: no PyTorch with a GPU | 0 |")
    fi
    page "$dir" >"$results/README.md"
    if ((${#failed[@]} > 0)); then
        echo "failed: ${failed[*]}" >&2
        exit 1
    fi
    echo "all passed; results in $results"
}

# The device, before anything is written.
probe() {
    local said status=0
    said=$("$1/gpu_bench" --probe 2>&1) || status=$?
    if ((status != 0)); then
        refuse "${said#gpu_bench: }"
    fi
    echo "$said"
}

[[ $# -eq 2 ]] || refuse "usage: gpu-day.sh pack|run|dry DIR"
mode=$1
case $mode in
    pack | run | dry) ;;
    *) refuse "got $mode, expected pack, run or dry" ;;
esac
mkdir -p "$2"
dir=$(cd "$2" && pwd)
if [[ $mode == pack ]]; then
    pack "$dir"
    exit
fi
[[ -x $dir/gpu_bench && -x $dir/instructions && -x $dir/assay ]] || refuse "$dir: no binaries; fill it with gpu-day.sh pack"
results=$dir/results
if [[ $mode == run ]]; then
    unset TILEWRIGHT_SOFTGPU
    probe "$dir"
    all "$dir" "${SIZE:-full}" --subject cuda --suite "${SUITE:-full}"
else
    results=$dir/results-dry
    export TILEWRIGHT_SOFTGPU=seed=0 LD_LIBRARY_PATH=$dir/softgpu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    probe "$dir"
    all "$dir" dry --subject cuda \
        --case attention/f32/b1h2k1/n3s5d4v4/causal/normal/1 \
        --case attention/bf16/b1h1k1/n9s17d8v8/plain/normal/1 \
        --case compression/n300/topk@0.1/hash@2/momentum=0.9,masked/wire=f32,plain/heavy/steps=2/ranks=1/7 \
        --case grouplasso/prox/f64/r17c3/ragged/sg=0.3/lambda=1/step=0.5+weights=drawn/heavy/1 \
        --case grouplasso/select/f32/r90c3/keep@0.1/descending/1
fi
