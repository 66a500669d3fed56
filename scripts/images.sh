#!/usr/bin/env bash
# Builds container images as OCI archives: scripts/images.sh OUT_DIR [operator|trainer|trainer-cuda|fashion-mnist …]
# By default, builds all images except trainer-cuda (4 GB).
# Unchanged images are not rebuilt. Environment variables:
#   OPERATOR_BINARY, TRAINER_BINARY  the programs; default: make's output
#   LIBTORCH                         the output folder of scripts/libtorch.sh
#   CUDA_LIBRARIES, CUDA_PLUGIN      the output of scripts/cuda-libraries.sh and scripts/cuda-plugin.sh, for trainer-cuda
#   REGISTRY (localhost/datjob), TAG (the workspace's version)
#   PUSH=1 also pushes to REGISTRY, with the options in PUSH_OPTIONS (--tls-verify=false)
#   DATJOB_CACHE (~/.cache/datjob)   stores image layers, separate from the machine's images
set -euo pipefail
umask 022
fail() { echo "images: $*" >&2; exit 1; }

[ $# -ge 1 ] || fail "usage: scripts/images.sh OUT_DIR [operator|trainer|fashion-mnist …]"
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- operator trainer fashion-mnist
cd "$(dirname "$0")/.."

cache=${DATJOB_CACHE:-$HOME/.cache/datjob}
store=$cache/buildah
registry=${REGISTRY:-localhost/datjob}
tag=${TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
libtorch=${LIBTORCH:-$cache/libtorch-2.11.0}
target=${CARGO_TARGET_DIR:-$cache/target}
operator=${OPERATOR_BINARY:-$target/release/datjob-operator}
trainer=${TRAINER_BINARY:-$target/release/dat-trainer}
cuda_libraries=${CUDA_LIBRARIES:-$cache/cuda-libraries-13.0}
cuda_plugin=${CUDA_PLUGIN:-$cache/lib/libdatjob_cuda.so}
dataset=/usr/share/datasets/fashion-mnist
# Builds are reproducible: files and images do not contain the build time.
timestamp=${SOURCE_DATE_EPOCH:-0}

mkdir -p "$store/tmp"
exec 9> "$store/lock"
flock 9 # concurrent builds would overwrite each other's context
export TMPDIR=$store/tmp
context=$store/context
trap 'rm -rf "$context"' EXIT

driver() { # overlay if the kernel and the file system support it, else vfs
  if [ ! -e "$store/driver" ]; then
    mkdir -p "$store/try/l" "$store/try/u" "$store/try/w" "$store/try/m"
    if mount -t overlay -o "lowerdir=$store/try/l,upperdir=$store/try/u,workdir=$store/try/w" overlay "$store/try/m" 2> /dev/null; then
      umount "$store/try/m"
      echo overlay > "$store/driver"
    else
      echo vfs > "$store/driver"
    fi
    rm -rf "$store/try"
  fi
  cat "$store/driver"
}

b() { buildah --root "$store/root" --runroot "$store/run" --storage-driver "$(driver)" "$@"; }

# Identifies the inputs of an image, one line per file. libtorch is 440 MB and never edited, so size and time suffice.
inputs() { # NAME
  echo "$registry $tag $timestamp"
  sha256sum scripts/images.sh LICENSE images/"$1"/*
  case $1 in
    operator)
      sha256sum "$operator"
      stat -c '%n %s %Y' /lib/*/libc.so.6 2> /dev/null || true
      ;;
    trainer)
      sha256sum "$trainer"
      cat "$libtorch/build-version"
      stat -c '%n %s %Y' "$libtorch"/lib/*
      stat -c '%n %s %Y' /etc/ssl/certs/ca-certificates.crt /lib/*/libc.so.6 /lib/*/libstdc++.so.6 2> /dev/null || true
      ;;
    trainer-cuda)
      inputs trainer
      cat "$cuda_libraries/libraries-version"
      sha256sum "$cuda_plugin"
      ;;
    fashion-mnist) stat -c '%n %s %Y' "$(busybox)" "$dataset"/* ;;
  esac
}

busybox() { command -v /bin/busybox || command -v busybox || fail "busybox is missing; run scripts/prerequisites.sh"; }

is_static() { ! readelf -lW "$1" | grep -q INTERP; }

copy() { cp --reflink=auto "$@"; }
# Hard links where possible, to avoid copies.
link() { cp -lL "$@" 2> /dev/null || copy -L "$@"; }

# Strips line tables, which are most of the file; a backtrace still names the functions.
program() { # FROM TO
  strip --strip-debug -o "$2" "$1"
  chmod 755 "$2"
}

# Copies the licence texts of the packages that contain the files, if dpkg knows them.
licences() { # ROOT FILE...
  local root=$1 package
  shift
  command -v dpkg-query > /dev/null || return 0
  for package in $( (for file; do dpkg-query -S "$file" "$(readlink -f "$file")" "/usr$file" 2> /dev/null || true; done) | sed 's/[:,].*//' | sort -u); do
    [ -e "/usr/share/doc/$package/copyright" ] || continue
    mkdir -p "$root/usr/share/doc/$package"
    copy -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
  done
}

# Copies a program's system libraries to the paths where the loader finds them on this machine, with their licences.
system_libraries() { # PROGRAM ROOT [FOLDER OF OTHER LIBRARIES]
  local libraries missing file
  libraries=$(LD_LIBRARY_PATH=${3:-} ldd "$1")
  missing=$(awk '/not found/ {print $1}' <<< "$libraries")
  [ -z "$missing" ] || fail "$1 needs missing libraries: $missing"
  libraries=$(awk '$2 == "=>" {print $3} $1 ~ /^\// {print $1}' <<< "$libraries" | sort -u)
  if [ -n "${3:-}" ]; then libraries=$(grep -v "^$(readlink -f "$3")/\|^$3/" <<< "$libraries"); fi
  for file in $libraries; do
    mkdir -p "$2$(dirname "$file")"
    copy -L "$file" "$2$file"
  done
  # shellcheck disable=SC2086
  licences "$2" $libraries
}

stage_operator() {
  program "$operator" "$context/datjob-operator"
  mkdir -p "$context/system"
  system_libraries "$operator" "$context/system"
  copy LICENSE "$context/LICENSE"
}

stage_trainer() {
  local system=$context/system file
  mkdir -p "$context/libtorch" "$system/etc/ssl/certs" "$system/usr/share/doc/datjob" "$context/writable/data" "$context/writable/checkpoints"
  mkdir -m 1777 "$context/writable/tmp"
  program "$trainer" "$context/dat-trainer"
  for file in libtorch_cpu.so libc10.so libgomp.so.1 libcupti.so.13 libcudart.so.13; do
    [ -e "$libtorch/lib/$file" ] || fail "$libtorch/lib/$file is missing; run scripts/libtorch.sh $libtorch"
    link "$libtorch/lib/$file" "$context/libtorch/"
  done

  system_libraries "$trainer" "$system" "$libtorch/lib"
  copy LICENSE "$system/usr/share/doc/datjob/LICENSE"
  copy -r "$libtorch/licenses/." "$system/usr/share/doc/"

  # Only Debian's default certificate authorities, without those that were added to this machine.
  if [ -d /usr/share/ca-certificates/mozilla ]; then
    cat /usr/share/ca-certificates/mozilla/*.crt > "$system/etc/ssl/certs/ca-certificates.crt"
  else
    copy -L /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
  fi
  printf 'root:x:0:0::/:/\ndatjob:x:65532:65532::/tmp:/\n' > "$system/etc/passwd"
  printf 'root:x:0:\ndatjob:x:65532:\n' > "$system/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' > "$system/etc/nsswitch.conf"
}

stage_trainer_cuda() {
  local file
  b inspect --type image "$registry/trainer:$tag" > /dev/null 2>&1 || fail "$registry/trainer:$tag is not built yet; list trainer before trainer-cuda"
  mkdir -p "$context/cuda" "$context/plugin" "$context/licences/usr/share/doc"
  for file in "$cuda_libraries"/lib/*; do link "$file" "$context/cuda/"; done
  program "$cuda_plugin" "$context/plugin/libdatjob_cuda.so"
  copy -r "$cuda_libraries/licenses/." "$context/licences/usr/share/doc/"
}

stage_fashion_mnist() {
  local busybox name
  busybox=$(busybox)
  is_static "$busybox" || fail "$busybox is not static; install busybox-static"
  mkdir -p "$context/system/bin" "$context/fashion-mnist"
  copy -L "$busybox" "$context/system/bin/busybox"
  for name in sh cp mkdir; do ln -s busybox "$context/system/bin/$name"; done
  for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
    [ -e "$dataset/$name-ubyte.gz" ] || fail "$dataset/$name-ubyte.gz is missing; run scripts/prerequisites.sh"
    copy "$dataset/$name-ubyte.gz" "$context/fashion-mnist/"
  done
  licences "$context/system" "$busybox" "$dataset/train-images-idx3-ubyte.gz"
  copy images/fashion-mnist/copy-data "$context/copy-data"
}

mib() { awk -v n="$1" 'BEGIN {printf n < 10485760 ? "%.1f MiB" : "%.0f MiB", n / 1048576}'; }

build() { # NAME
  local name=$1 image=$registry/$1:$tag archive=$out/$1.tar hash unpacked started=$SECONDS arguments=()
  if [ "$name" = trainer-cuda ]; then arguments=(--build-arg "TRAINER=$registry/trainer:$tag"); fi
  hash=$(inputs "$name" | sha256sum | cut -d ' ' -f 1)
  if [ -e "$archive" ] && [ "$(cat "$archive.inputs" 2> /dev/null)" = "$hash" ]; then
    echo "images: $image is up to date"
    return
  fi
  rm -rf "$context" "$archive.inputs"
  mkdir -p "$context"
  "stage_${name//-/_}"
  chmod -R a+rX "$context" # the images' user must be able to read everything, whatever the umask
  unpacked=$(du -sb "$context" | cut -f 1)
  b bud --quiet --layers --isolation chroot --format oci --timestamp "$timestamp" --pull-never --no-hosts \
    "${arguments[@]}" --file "images/$name/Containerfile" --tag "$image" "$context" > /dev/null || fail "$image: buildah bud failed"
  # zstd takes half the time of gzip and is smaller; containerd 1.5 and newer, CRI-O and Podman support it.
  b push --quiet --compression-format zstd "$image" "oci-archive:$archive.new:$image" || fail "$image: cannot write the archive $archive.new"
  mv "$archive.new" "$archive"
  # Remove unused layers.
  b rmi --prune > /dev/null 2>&1 || true
  echo "$hash" > "$archive.inputs"
  echo "images: built $image: $(mib "$unpacked"), $archive $(mib "$(stat -c %s "$archive")"), in $((SECONDS - started)) s"
}

command -v buildah > /dev/null || fail "buildah is missing; run scripts/prerequisites.sh"
for name; do
  case $name in
    operator) [ -x "$operator" ] || fail "$operator is missing; run make programs, or set OPERATOR_BINARY" ;;
    trainer) [ -x "$trainer" ] || fail "$trainer is missing; run make programs, or set TRAINER_BINARY" ;;
    trainer-cuda)
      [ -e "$cuda_libraries/libraries-version" ] || fail "$cuda_libraries is missing; run scripts/cuda-libraries.sh $cuda_libraries"
      [ -e "$cuda_plugin" ] || fail "$cuda_plugin is missing; run make plugin, or set CUDA_PLUGIN"
      ;;
    fashion-mnist) ;;
    *) fail "unknown image $name; expected operator, trainer, trainer-cuda or fashion-mnist" ;;
  esac
  if [ "${PUSH:-0}" = 1 ] && ! b inspect --type image "$registry/$name:$tag" > /dev/null 2>&1; then
    rm -f "$out/$name.tar.inputs" # the archive exists, but the layers are gone
  fi
  build "$name"
  if [ "${PUSH:-0}" = 1 ]; then
    read -r -a options <<< "${PUSH_OPTIONS:-}"
    b push --quiet "${options[@]}" "$registry/$name:$tag" "docker://$registry/$name:$tag" || fail "cannot push $registry/$name:$tag"
    echo "images: pushed $registry/$name:$tag"
  fi
done
