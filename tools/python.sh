#!/usr/bin/env bash
# Runs tests/elsewhere.py on another Python, that of a release of Debian:
#   sudo tools/python.sh FOLDER trixie [arguments of tests/elsewhere.py]     Python 3.13
#   sudo tools/python.sh FOLDER sid                                          Python 3.14
# FOLDER takes 8 GB: Debian's base and torch, whose builds for these Pythons bring CUDA along. Needs debootstrap. Goes on
# where it was stopped; the record comes to results/checks.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
suite=$2
shift 2
root=$folder/root

if ! [ -e "$root/.made" ]; then
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -v security | sort -u | head -1)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-dev,gcc,g++,libc6-dev,git,ca-certificates \
    "$suite" "$root" "$mirror"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  touch "$root/.made"
fi
mkdir -p "$root/project"
mountpoint -q "$root/project" || mount --bind "$top" "$root/project"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
trap 'umount "$root/project" "$root/proc" "$root/dev"' EXIT
inside() {
  chroot "$root" env HOME=/tmp PATH=/venv/bin:/usr/bin:/bin OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 \
    SPARSERNN_CACHE=/kernels GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' \
    sh -c "cd /project && $1" inside "${@:2}"
}
if ! [ -e "$root/venv/.made" ]; then
  inside 'python3 -m venv /venv && pip install -q -c constraints.txt -e ".[dev]" -e ./studies'
  touch "$root/venv/.made"
fi
inside 'exec python3 tests/elsewhere.py --record results/checks "$@"' "$@"
