#!/usr/bin/env bash
# Runs fuzz targets, all where none is named, with an option of libFuzzer: scripts/fuzz.sh FOLDER OPTION [TARGET...]
# -max_total_time=60 is a minute each, -runs=0 the seeds alone.
# What was found to reach new code is kept in FOLDER/TARGET/corpus; an input that made a target fail, in FOLDER/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 option=$2
shift 2
triple=x86_64-unknown-linux-gnu
build=${CARGO_TARGET_DIR:-target}/fuzz

# What cargo-fuzz sets, without its address sanitizer: that one needs a nightly compiler, and our parsers have no unsafe.
# cfg(fuzzing) lets the PNG decoder pass over checksums.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
echo "==> Building the fuzz targets (the first time: some minutes)"
CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$flags" \
  cargo build --quiet --profile fuzz --target "$triple" --target-dir "$build" -p datjob-fuzz

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for file in trainer/fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

fuzz() { # TARGET
  local target=$1 work=$folder/$1 seeds=trainer/fuzz/seeds/$1
  [ "$target" = manifest ] && seeds=examples
  mkdir -p "$work/corpus" "$work/tmp"
  local result=0
  # No input may take 2 GB or a minute, which is long enough for a busy machine. Whatever else runs comes first.
  TMPDIR=$work/tmp RUST_BACKTRACE=1 \
    nice -n 10 "$build/$triple/fuzz/$target" "$work/corpus" "$seeds" "$option" -max_len=8192 \
    -rss_limit_mb=2048 -timeout=60 -artifact_prefix="$work/" -print_final_stats=1 > "$work/log" 2>&1 || result=$?
  rm -rf "$work/tmp"
  if [ "$result" != 0 ]; then
    tail -n 40 "$work/log" >&2
    echo "fuzz: $target failed; see $work/log; the input lies beside it, and is given to $build/$triple/fuzz/$target to see it again" >&2
    return 1
  fi
  awk -v target="$target" '/^stat::number_of_executed_units/ {runs = $2} /^#[0-9]+/ && match($0, /cov: [0-9]+/) {edges = substr($0, RSTART + 5, RLENGTH - 5)}
    END {printf "%-12s %9d runs, %5d edges of the program reached\n", target, runs, edges}' "$work/log"
}
export -f fuzz
export folder option build triple
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I TARGET bash -euo pipefail -c 'fuzz TARGET'
