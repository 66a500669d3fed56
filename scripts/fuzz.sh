#!/usr/bin/env bash
# Runs fuzz targets (by default all) with a libFuzzer option: scripts/fuzz.sh FOLDER OPTION [TARGET...]
# -max_total_time=60 runs each target for a minute; -runs=0 runs only the seeds.
# Inputs that reach new code stay in FOLDER/TARGET/corpus; an input that makes a target fail is written to FOLDER/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 option=$2
shift 2
triple=x86_64-unknown-linux-gnu
build=${CARGO_TARGET_DIR:-target}/fuzz

# The flags of cargo-fuzz without the address sanitizer, which needs a nightly compiler; our parsers have no unsafe code.
# With cfg(fuzzing), the PNG decoder skips checksums.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
echo "==> Building the fuzz targets (the first build takes some minutes)"
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
  # An input may take at most 2 GB and a minute, which suffices on a busy machine. Other processes take priority.
  TMPDIR=$work/tmp RUST_BACKTRACE=1 \
    nice -n 10 "$build/$triple/fuzz/$target" "$work/corpus" "$seeds" "$option" -max_len=8192 \
    -rss_limit_mb=2048 -timeout=60 -artifact_prefix="$work/" -print_final_stats=1 > "$work/log" 2>&1 || result=$?
  rm -rf "$work/tmp"
  if [ "$result" != 0 ]; then
    tail -n 40 "$work/log" >&2
    echo "fuzz: $target failed; see $work/log; to reproduce, run $build/$triple/fuzz/$target with the input in $work" >&2
    return 1
  fi
  awk -v target="$target" '/^stat::number_of_executed_units/ {runs = $2} /^#[0-9]+/ && match($0, /cov: [0-9]+/) {edges = substr($0, RSTART + 5, RLENGTH - 5)}
    END {printf "%-12s %9d runs, %5d edges covered\n", target, runs, edges}' "$work/log"
}
export -f fuzz
export folder option build triple
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I TARGET bash -euo pipefail -c 'fuzz TARGET'
