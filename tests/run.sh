#!/usr/bin/env bash
# Every test, from a fresh clone: sets up (jobs/setup.sh), then builds and tests the presets release, asan and tsan, and cuda where nvcc is.
# Can be run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $EUID -eq 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none                     # Open MPI 4
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none # Open MPI 5
jobs=$(nproc)

say() { printf '\n== %s\n' "$*"; }
results=()
run_tests() { # PRESET, ctest's options…
    results+=("$PWD/build/$1/results.xml")
    rm -f "${results[-1]}"
    local at_once=$jobs
    if [[ $1 == release ]]; then at_once=$((jobs + 1)); fi # its tests in Python often wait: for Slurm, a launcher, a disk
    ctest --preset "$1" --parallel "$at_once" --output-junit "${results[-1]}" "${@:2}" && return
    say "What failed" # once more, and last: where a log is long, its end is what is read
    .venv/bin/python - "${results[-1]}" <<'END'
import sys
import xml.etree.ElementTree as xml

for case in xml.parse(sys.argv[1]).getroot().iter("testcase"):
    if case.find("failure") is not None:
        lines = (case.findtext("system-out") or "").splitlines()
        told = [line for line in lines[:-8] if line.startswith("E  ") or ": Failure" in line or "ERROR: " in line]
        print(f"-- {case.get('name')}", *told[-12:], *lines[-8:], sep="\n")
END
    return 1
}
build() { # PRESET, cmake --build's options…
    local files=()
    # Each file of the program by itself here, as who changes it compiles it; elsewhere several as one, as the presets do.
    if [[ $1 == release ]]; then files=(-DCMAKE_UNITY_BUILD=OFF -DFAIRGPTQ_UNITY_TESTS=ON); fi
    cmake --preset "$1" -Wno-dev -DFAIRGPTQ_TESTS=ON -DFAIRGPTQ_PYTHON="$PWD/.venv/bin/python" "${files[@]}"
    cmake --build --preset "$1" --parallel "$jobs" "${@:2}"
}

say "Set up"
bash jobs/setup.sh --tests

cpp_tests=(test_{support,backend,comm,model,calibration,solver,pipeline,run,export,eval} mpi_collectives)

say "Release: all tests, but those that the address sanitizer's stage has time for alone"
# The GPU's code on an emulation, whose optimised form says nothing of a GPU's; and damaged files.
build release --target fairgptq fairgptq_emulated "${cpp_tests[@]}"
run_tests release --label-exclude '^(cuda_emulation|fuzz)$' --exclude-regex '^test_cuda_NOT_BUILT$'

say "Address and undefined-behaviour sanitizers: the C++ tests"
# Without the program, which the tests in Python run.
build asan --target "${cpp_tests[@]}" test_cuda fuzz_readers
# Open MPI and its helpers keep some memory until the process ends; what our own code loses is reported.
LSAN_OPTIONS="suppressions='$PWD/tests/lsan.supp':print_suppressions=0" \
    run_tests asan --label-exclude python

say "Thread sanitizer: the folders that start threads of their own"
build tsan --target test_model --target test_run --target test_pipeline --target test_comm
# GCC's OpenMP is not instrumented, and its barriers look like races: one OpenMP thread, so that the threads are ours alone.
# Left out, as a third of the time: what repeats runs whose threads meet as those of the other tests do.
OMP_NUM_THREADS=1 run_tests tsan --label-regex '^(model|run|pipeline|comm)$' --exclude-regex '^pipeline\.(Gaps|LonelyExperts|Latents.*)\.'

if command -v nvcc >/dev/null; then
    say "CUDA: the GPU code compiles and links, NCCL's too; its tests run where a GPU is"
    build cuda --target fairgptq --target test_backend --target test_comm
    run_tests cuda --label-regex '^(backend|comm)$' --tests-regex '[Cc]uda|[Nn]ccl'
fi

say "All stages"
.venv/bin/python - "${results[@]}" <<'END'
import sys
import xml.etree.ElementTree as xml

suites = [xml.parse(file).getroot().attrib for file in sys.argv[1:]]
total, failed, skipped, disabled = (sum(int(suite[count]) for suite in suites)
                                    for count in ("tests", "failures", "skipped", "disabled"))
print(f"{total - failed - skipped - disabled} passed, {failed} failed, {skipped + disabled} skipped")
END
