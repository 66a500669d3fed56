#!/usr/bin/env bash
# Builds the CUDA plugin (trainer/c10d/plugin), on any machine: scripts/cuda-plugin.sh LIBTORCH CUDA_HEADERS OUT_FILE
# Links no libraries: libtorch_cuda has loaded the plugin's dependencies before the plugin is loaded.
set -euo pipefail
libtorch=${1:?usage: scripts/cuda-plugin.sh LIBTORCH CUDA_HEADERS OUT_FILE}
headers=${2:?usage: scripts/cuda-plugin.sh LIBTORCH CUDA_HEADERS OUT_FILE}
out=${3:?usage: scripts/cuda-plugin.sh LIBTORCH CUDA_HEADERS OUT_FILE}
cd "$(dirname "$0")/../trainer/c10d"
compiler=${CXX:-g++}
hash=$({
  "$compiler" --version
  cat "$libtorch/build-version" "$headers/headers-version" ../../scripts/cuda-plugin.sh
  find plugin cpp/bridge.h cpp/guard.h cpp/guard.cpp -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -d ' ' -f 1)
[ -e "$out" ] && [ "$(cat "$out.hash" 2> /dev/null)" = "$hash" ] && exit 0
echo "==> Building the CUDA plugin"
mkdir -p "$(dirname "$out")"
"$compiler" -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -fvisibility-inlines-hidden -Wall -Wextra -Werror -DUSE_C10D_NCCL \
  -isystem plugin/declarations -isystem "$libtorch/include" -isystem "$libtorch/include/torch/csrc/api/include" \
  -isystem "$headers/include" -isystem "$headers/include/cccl" \
  plugin/plugin.cpp cpp/guard.cpp -o "$out.new"
# Otherwise an unresolved symbol would fail only on a machine with a GPU.
names() { nm -D "$@" | awk '{print $NF}' | sed 's/@.*//' | LC_ALL=C sort -u; }
system=(libstdc++.so.6 libgcc_s.so.1 libc.so.6 libm.so.6)
missing=$(LC_ALL=C comm -23 <(names --undefined-only "$out.new" | grep -v '^__gmon_start__$\|^_ITM_') \
  <({
    cat "$libtorch/cuda-symbols"
    names --defined-only "$libtorch"/lib/lib{torch_cpu,c10}.so "$libtorch"/lib/libcudart.so.13
    for library in "${system[@]}"; do names --defined-only "$("$compiler" -print-file-name="$library")"; done
    echo __tls_get_addr
  } | LC_ALL=C sort -u))
if [ -n "$missing" ]; then
  echo "cuda-plugin: libtorch and CUDA do not export these symbols that the plugin imports:" >&2
  c++filt <<< "$missing" >&2
  exit 1
fi
strip --strip-unneeded "$out.new"
mv "$out.new" "$out"
echo "$hash" > "$out.hash"
