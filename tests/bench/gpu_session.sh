#!/usr/bin/env bash
# What a GPU is needed for, in steps of under 10 minutes each: every test that is skipped without one, and the measurements.
#
#   bash tests/bench/gpu_session.sh                        build, tests, bench, forward, models, layer, model, table (and peer, where
#                                                          LLM Compressor is)
#   bash tests/bench/gpu_session.sh STEP...                only these:
#     bundle    on a machine without a GPU: programs, and the libraries they need beside CUDA's, to build/gpu_bundle.tar.xz,
#               for a GPU machine that has CUDA 13 but cannot install the rest; carry that file there, and leave out `build`
#     build     the preset cuda
#     tests     the backend, every form of model and the solver on the GPU
#     sanitize  the columns' and attention's kernels under compute-sanitizer: races, and memory that is not theirs
#     bench     fairgptq bench, shapes of an 8B and of a 70B model
#     peer      beside LLM Compressor (README.md in this folder), shapes of an 8B and of a 70B model
#     forward   one block beside PyTorch's, shapes of an 8B and of a 70B model (needs torch and transformers)
#     models    random weights, 16 GB in the shape of an 8B model and 2 layers in that of a 70B model, to build/gpu_models
#     layer     those 2 layers quantized, 128 x 2048 tokens; GPU memory within 5 % of the plan
#     model     the 8B model quantized, from the command to its last checkpoint; the same
#     table     the rows that the measurements are for
#
# Needs no network. Everything it prints is also in build/gpu_results; the exit code is 1 if any step failed.
# PIECE=FOLDER is a piece of a real model (cut_model.py in this folder): its first layer is compared with the CPU's; `bundle` takes it along.
# MINUTES=9 ends what runs after so long and leaves out the rest, for a machine that is lent for a time; STEP_SECONDS=90 ends each step.
set -uo pipefail
self=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$self")/../.." || exit
if [[ $EUID -eq 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none                     # Open MPI 4
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none # Open MPI 5

results=${OUT:-build/gpu_results}
bundle=build/gpu_bundle
models=build/gpu_models
limit=${STEP_SECONDS:-560} # of a step
all=$((${MINUTES:-1440} * 60)) # seconds all steps
python=${PYTHON:-python3}
failed=0
test_targets=(--target test_backend --target test_model --target test_solver --target test_comm)

say() { printf '\n== %s\n' "$*"; }
# Runs one of the functions below within the limit, and goes on whatever becomes of it.
step() { # NAME FUNCTION..
    local name=$1 begin=$SECONDS
    local left=$((all - begin))
    shift
    say "$name"
    if ((left < 5)); then
        failed=1
        printf '== %s: not run, the time is over\n' "$name" | tee -a "$results/summary.log"
        return 1
    fi
    timeout "$((left < limit ? left : limit))" bash "$self" run "$@" 2>&1 | tee "$results/$name.log"
    local code=${PIPESTATUS[0]}
    [[ $code -eq 0 ]] || failed=1
    printf '== %s: exit code %d, %d s\n' "$name" "$code" $((SECONDS - begin)) | tee -a "$results/summary.log"
}
use_programs() {
    if [[ -f $bundle.tar.xz && ! -d $bundle ]]; then
        tar -C build -xf "$bundle.tar.xz"
        # An Open MPI that is there has an mpirun and plugins of its own version.
        if ldconfig -p | grep -q 'libmpi\.so\.40'; then rm -f "$bundle"/lib/lib{mpi,open-rte,open-pal,hwloc,event_core-2.1,event_pthreads-2.1}.so*; fi
    fi
    if [[ -x $bundle/fairgptq ]]; then
        programs=$bundle
        # CUDA's libraries may be there as Python's packages alone, all in one folder.
        local cuda=/usr/local/cuda/lib64
        local packages
        packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)/nvidia
        [[ -e $cuda/libcublas.so.13 && -e $cuda/libcusolver.so.12 ]] || cuda+=:$packages/cu13/lib
        ldconfig -p | grep -q libnccl.so.2 || cuda+=:$packages/nccl/lib
        export LD_LIBRARY_PATH=$PWD/$bundle/lib:$cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    else
        programs=build/cuda
    fi
    tests=$programs
    [[ -d $programs/tests ]] && tests=$programs/tests
    return 0
}

make_bundle() {
    # Another processor of this architecture may be there, and perhaps no NCCL (FAIRGPTQ_NCCL=OFF).
    local march=x86-64-v3
    [[ $(uname -m) != aarch64 ]] || march=armv8.2-a
    cmake -S . -B build/cuda_any -G Ninja -Wno-dev -DCMAKE_BUILD_TYPE=Release -DFAIRGPTQ_CUDA=ON -DFAIRGPTQ_TESTS=ON \
        -DFAIRGPTQ_MARCH=$march -DFAIRGPTQ_NCCL="${FAIRGPTQ_NCCL:-ON}" "${shared[@]}" &&
        cmake --build build/cuda_any --parallel "$(nproc)" --target fairgptq "${test_targets[@]}" || return
    rm -rf "$bundle" && mkdir -p "$bundle/lib" || return
    cp build/cuda_any/fairgptq build/cuda_any/tests/test_{backend,model,solver,comm} "$bundle/" || return
    "$python" tools/random_model.py 8b "$bundle/tokens" --only tokens || return # of one vocabulary with the 70B model
    if [[ -n ${PIECE:-} ]]; then cp -rL "$PIECE" "$bundle/piece" || return; fi
    strip "$bundle"/fairgptq "$bundle"/test_*
    # The system's own and CUDA's libraries are there; the loader's must be.
    ldd "$bundle"/fairgptq "$bundle"/test_* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s|libcu(dart|blas|blasLt|solver|sparse)|libnvJitLink|libnccl)\.so' |
        xargs -r -I{} cp -L {} "$bundle/lib/"
    strip --strip-unneeded "$bundle"/lib/*.so* 2>/dev/null
    tar -C build -cJf "$bundle.tar.xz" gpu_bundle && du -sh "$bundle.tar.xz"
}
build() {
    cmake --preset cuda -Wno-dev -DFAIRGPTQ_TESTS=ON "${shared[@]}" &&
        cmake --build --preset cuda --parallel "$(nproc)" --target fairgptq "${test_targets[@]}"
}
# A test program as several processes at once, each with its share of the tests: most of them wait for the host.
sharded() { # PROGRAM ARGUMENT..
    local code=0 processes=() count=4
    for ((i = 0; i < count; ++i)); do
        GTEST_TOTAL_SHARDS=$count GTEST_SHARD_INDEX=$i "$@" >"$results/$(basename "$1").$i.txt" 2>&1 &
        processes+=($!)
    done
    for ((i = 0; i < count; ++i)); do
        wait "${processes[i]}" || code=1
        cat "$results/$(basename "$1").$i.txt"
    done
    return "$code"
}
run_tests() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || return
    local code=0
    # The column kernel against the CPU's bytes first: if that fails, nothing after it means anything.
    "$tests/test_backend" --gtest_brief=1 --gtest_filter='CudaMemory*:CudaColumns.*' || code=1
    sharded "$tests/test_backend" --gtest_brief=1 --gtest_filter='*/cuda:*/cuda_float*:DeviceTest.*:Cuda*:TiledAttention.*' || code=1
    "$tests/test_model" --gtest_brief=1 --gtest_filter='*CudaForward*' || code=1
    sharded "$tests/test_solver" --gtest_brief=1 --gtest_filter='CudaSolve.*:*Official*/cuda' || code=1
    "$tests/test_comm" --gtest_brief=1 --gtest_filter='NcclTest.*' || code=1
    if "$python" -c 'import pytest, h5py, safetensors' 2>/dev/null; then
        local piece=${PIECE:-}
        [[ -z $piece && -d $bundle/piece ]] && piece=$bundle/piece
        export FAIRGPTQ_BINARY=$PWD/$programs/fairgptq FAIRGPTQ_PIECE=${piece:+$(realpath "$piece")}
        local solve pytest=("$python" -m pytest -v -rs -p no:cacheprovider --durations=5 -o faulthandler_timeout=40)
        "${pytest[@]}" tests/end_to_end/test_solve.py >"$results/test_solve.txt" 2>&1 &
        solve=$!
        "${pytest[@]}" tests/end_to_end/test_gpu.py || code=1
        wait "$solve" || code=1
        cat "$results/test_solve.txt"
    else
        echo "end to end: skipped, $python has no pytest, h5py or safetensors"
    fi
    return "$code"
}
sanitize() {
    local code=0
    for tool in memcheck racecheck synccheck; do
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests/test_backend" --gtest_brief=1 \
            --gtest_filter='CudaColumns.*:*AttentionTest.RaggedSequences/cuda:*AttentionTest.SlidingWindow/cuda' || code=1
    done
    return "$code"
}
bench() { # SHAPE
    "$programs/fairgptq" bench --model-shape "$1" --device cuda --tokens 16384 --sequence-length 2048 --group-size 128 \
        --json >"$results/bench_$1.json" && print_bench "$results/bench_$1.json"
}
print_bench() {
    "$python" - "$1" <<'PY'
import json, sys
run = json.load(open(sys.argv[1]))
print(f"{run['device']}, shapes of {run['model_shape']}; float32 {run['matrix_rate'] / 1e12:.1f} TFLOP/s, activations' type "
      f"{run['activation_matrix_rate'] / 1e12:.0f} TFLOP/s, copy {run['copy_rate'] / 1e12:.2f} TB/s")
for row in run["kernels"]:
    print(f"{row['kernel']:18}{row['size']:22}{row['seconds'] * 1e3:10.2f} ms {100 * row['share_of_matrix_rate']:5.0f} % of its "
          f"matrix rate {100 * row['share_of_copy_rate']:5.0f} % of the copy rate")
PY
}
peer() { # SHAPES
    "$python" tests/bench/compare_llmcompressor.py --device cuda --shapes "$1" --fairgptq "$programs/fairgptq" --rounds 2
}
forward() { # SHAPE [OPTIONS]
    "$python" tests/bench/compare_forward.py --device cuda --tokens 16384 --length 2048 --fairgptq "$programs/fairgptq" --shape "$@"
}
make_models() { # [SHAPE OF THE WHOLE ONE] [OF THE TWO LAYERS]
    rm -rf "$models" && mkdir -p "$models" &&
        "$python" tools/random_model.py "${1:-8b}" "$models/whole" --only model &&
        "$python" tools/random_model.py "${2:-70b}" "$models/layers" --only model --layers 2 || return
    if [[ -f $bundle/tokens/tokens.h5 ]]; then
        cp "$bundle/tokens/tokens.h5" "$models/"
    else
        "$python" tools/random_model.py "${1:-8b}" "$models/tokens" --only tokens && mv "$models/tokens/tokens.h5" "$models/"
    fi
}
quantize() { # whole|layers [OPTIONS]
    local name=$1
    shift
    rm -rf "$models/$name.run"
    local begin=$EPOCHREALTIME
    "$programs/fairgptq" quantize --model "$models/$name" --tokens "$models/tokens.h5" --out "$models/$name.run" --device cuda "$@" || return
    "$python" - "$begin" "$EPOCHREALTIME" "$models/$name.run/log.jsonl" "$results/$name.json" <<'PY'
import json, sys
events = [json.loads(line) for line in open(sys.argv[3])]
layers = [event for event in events if event["event"] == "layer"]
# What a layer takes but for the disk; of the first one libraries load their kernels.
own = [event["seconds"] - event["phases"]["read"] - event["phases"]["write"] for event in layers]
wall = float(sys.argv[2]) - float(sys.argv[1])
json.dump({"wall": wall, "layers": own, "phases": [event["phases"] for event in layers]}, open(sys.argv[4], "w"))
print(f"{wall:.1f} s in all; layers without disk: {', '.join(f'{one:.2f}' for one in own)} s")
for phase, seconds in layers[-1]["phases"].items():
    print(f"  last layer, {phase:12} {seconds:8.3f} s")
planned, peak = events[0]["planned_device_bytes"], events[-1]["peak_device_bytes"]
print(f"  GPU memory: {peak / 2**30:.2f} GiB, {planned / 2**30:.2f} planned")
sys.exit(abs(peak / planned - 1) > 0.05)
PY
}
print_table() {
    "$python" - "$results/bench_70b.json" "$results" <<'PY'
import json, pathlib, re, sys
run = json.load(open(sys.argv[1]))
seconds = {(row["kernel"], row["size"]): row["seconds"] for row in run["kernels"]}
print(f"{run['device']}\n{'work':58}{'to reach':>12}{'measured':>14}")
missed = False
for what, key, goal in [
        ("solve 8192 x 28672, factorization included", ("solve", "8192 x 28672"), 1.0),
        ("solve 28672 x 8192", ("solve", "28672 x 8192"), 0.10),
        ("solve 8192 x 8192", ("solve", "8192 x 8192"), 0.05),
        ("H from 16384 tokens, n = 28672", ("covariance", "28672 x 16384 tokens"), 0.045)]:
    missed |= seconds[key] > goal
    print(f"{what:58}{goal * 1e3:9.0f} ms{seconds[key] * 1e3:11.1f} ms{'' if seconds[key] <= goal else '   missed'}")
for shapes in ("8b", "70b"):
    log = pathlib.Path(sys.argv[2]) / f"peer_{shapes}.log"
    text = log.read_text() if log.exists() else ""
    sizes = re.findall(r"^(\d+ x \d+), group", text, re.M)
    ratios = [float(ratio) for ratio in re.findall(r"median ([\d.]+) times as fast", text)]
    for size, ratio in zip(sizes, ratios):
        missed |= ratio < 1.5
        print(f"{'the column solver against LLM Compressor, ' + size:58}{'1.5':>12}{ratio:14.2f}{'' if ratio >= 1.5 else '   missed'}")
    if not ratios:
        print(f"the column solver against LLM Compressor, {shapes}: not measured")

def row(what, goal, value, reached):
    global missed
    missed |= value is not None and not reached(value)
    print(f"{what:58}{goal:>12}{'not measured' if value is None else f'{value:.2f}':>14}"
          f"{'' if value is None or reached(value) else '   missed'}")

def quantized(name):
    file = pathlib.Path(sys.argv[2]) / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}

row("one 70B layer, 128 x 2048 tokens, but for the disk, s", "4", quantized("layers").get("layers", [None])[-1], lambda s: s <= 4)
row("an 8B model, 128 x 2048 tokens, to its checkpoint, s", "45", quantized("whole").get("wall"), lambda s: s <= 45)
for shapes in ("8b", "70b"):
    log = pathlib.Path(sys.argv[2]) / f"forward_{shapes}.log"
    found = re.search(r"forward ([\d.]+) times as fast", log.read_text()) if log.exists() else None
    row(f"one block's forward against PyTorch's, {shapes}", "1", float(found[1]) if found else None, lambda ratio: ratio >= 1)
sys.exit(1 if missed else 0)
PY
}

shared=()
[[ -n ${FAIRGPTQ_SHARED_DIR:-} ]] && shared=("-DFAIRGPTQ_SHARED_DIR=$FAIRGPTQ_SHARED_DIR")
mkdir -p "$results"
if [[ ${1:-} == run ]]; then # a step, in a process of its own that can be stopped
    use_programs
    "${@:2}"
    exit
fi
steps=("$@")
if [[ ${#steps[@]} -eq 0 ]]; then
    steps=(build tests bench)
    "$python" -c 'import torch, transformers' 2>/dev/null && steps+=(forward)
    steps+=(models layer model)
    "$python" -c 'import llmcompressor' 2>/dev/null && steps+=(peer)
    steps+=(table)
fi
for name in "${steps[@]}"; do
    case $name in
    bundle) limit=3600 step bundle make_bundle ;;
    build) step build build ;;
    tests) step tests run_tests ;;
    sanitize) step sanitize sanitize ;;
    bench) step bench_8b bench 8b && step bench_70b bench 70b ;;
    forward) step forward_8b forward 8b && step forward_70b forward 70b ;;
    models) step models make_models ;;
    layer) step layer quantize layers ;;
    model) step model quantize whole ;;
    peer) step peer_8b peer 8b && step peer_70b peer 70b ;;
    table) step table print_table ;;
    *) echo "$name is no step; they are bundle, build, tests, sanitize, bench, forward, models, layer, model, peer and table" >&2 && exit 2 ;;
    esac
done
exit "$failed"
