#!/usr/bin/env bash
# Sees to it that MPI is there: mpirun, its headers, and the libclang that reads them. Installs them as root on Debian and its
# descendants; says what to install elsewhere, and fails.
set -euo pipefail

missing() {
    command -v mpirun >/dev/null || echo mpirun
    command -v mpicc >/dev/null || echo "the headers of MPI (mpicc)"
    # Where bindgen looks for it.
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang*.so*' >/dev/null \
        || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || compgen -G "${LIBCLANG_PATH:-/nowhere}/libclang*.so*" >/dev/null \
        || echo libclang
}

lacking=$(missing)
[ -z "$lacking" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openmpi-bin libopenmpi-dev libclang-dev >/dev/null
    lacking=$(missing)
    [ -z "$lacking" ] && exit 0
fi
echo "fpxint-mpi is built and tested with MPI, and this machine lacks:" $lacking >&2
echo "Install them, on Debian and Ubuntu: apt-get install openmpi-bin libopenmpi-dev libclang-dev" >&2
echo "on Fedora: dnf install openmpi openmpi-devel clang-libs; on macOS: brew install open-mpi llvm" >&2
exit 1
