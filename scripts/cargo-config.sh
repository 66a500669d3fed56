#!/usr/bin/env bash
# Lets plain cargo and rust-analyzer build as make does: scripts/cargo-config.sh LIBTORCH TARGET_DIR
# Writes .cargo/config.toml, which git ignores. A file that somebody else wrote stays.
set -euo pipefail
libtorch=${1:?usage: scripts/cargo-config.sh LIBTORCH TARGET_DIR}
target=${2:?usage: scripts/cargo-config.sh LIBTORCH TARGET_DIR}
cd "$(dirname "$0")/.."
file=.cargo/config.toml
# shellcheck disable=SC2016 # the backquotes are text
mark='# Written by `make libtorch`; remove this line to keep your own changes.'
if [ -e "$file" ] && [ "$(head -n 1 "$file")" != "$mark" ]; then exit 0; fi
content="$mark
[build]
target-dir = \"$target\"

[env]
LIBTORCH = \"$libtorch\""
if [ "$content" = "$(cat "$file" 2> /dev/null)" ]; then exit 0; fi
mkdir -p .cargo
printf '%s\n' "$content" > "$file"
