#!/usr/bin/env bash
# Runs tests/elsewhere.py on an emulated aarch64 (NEON kernels really run; times mean nothing):
#   sudo tools/aarch64.sh FOLDER [arguments of tests/elsewhere.py]
# FOLDER takes 3 GB: Debian's arm64 base, made once, and the wheels of aarch64. Needs debootstrap and qemu-user-static,
# and kernels with binfmt_misc. Goes on where it was stopped; the record comes to results/checks.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
root=$folder/root

if ! [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
  cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register
fi
if ! [ -e "$root/.made" ]; then
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -v security | sort -u | head -1)
  debootstrap --arch=arm64 --variant=minbase --include=python3,gcc,libc6-dev,git bookworm "$root" "$mirror"
  touch "$root/.made"
fi
if ! [ -e "$root/site/.made" ]; then
  # torch of an older release: a build for processors alone. What depends on what is not asked of this machine's pip,
  # which would add what this machine needs.
  named='numpy|numba|llvmlite|safetensors|networkx|rich|pytest|pytest-timeout|hypothesis|sympy|mpmath|filelock|fsspec'
  named+='|typing_extensions|Jinja2|MarkupSafe|markdown-it-py|mdurl|Pygments|iniconfig|packaging|pluggy|sortedcontainers'
  tags=$(for n in 28 27 17; do echo "--platform manylinux_2_${n}_aarch64"; done)
  # shellcheck disable=SC2046,SC2086
  "${PYTHON:-python3}" -m pip install --quiet --target "$root/site" --no-deps --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --abi abi3 --abi none $tags --platform manylinux2014_aarch64 torch==2.9.1 \
    $(grep -iE "^($named)==" "$top/constraints.txt")
  touch "$root/site/.made"
fi
mkdir -p "$root/project"
mountpoint -q "$root/project" || mount --bind "$top" "$root/project"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
trap 'umount "$root/project" "$root/proc"' EXIT
chroot "$root" env HOME=/tmp PYTHONPATH=/site:/project/src:/project/studies/src OMP_NUM_THREADS=1 \
  PYTHONDONTWRITEBYTECODE=1 SPARSERNN_CACHE=/kernels GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory \
  GIT_CONFIG_VALUE_0='*' sh -c 'cd /project && exec python3 tests/elsewhere.py --record results/checks "$@"' elsewhere "$@"
