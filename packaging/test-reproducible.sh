#!/usr/bin/env bash
# Holds that a build can be repeated: the last commit, cloned to two places and built with different numbers of jobs,
# masks and time zones, gives the same bytes.
#
#   packaging/test-reproducible.sh [TARGET]        without a target: aarch64
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
target=${1-aarch64-unknown-linux-gnu}
prepare_rust

there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT

# build DIRECTORY JOBS MASK ZONE
build() {
    git clone --quiet . "$1"
    (
        umask "$3"
        export CARGO_BUILD_JOBS=$2 TZ=$4
        "$1/packaging/build.sh" "$target" >"$1.log" 2>&1
    ) || { cat "$1.log" && die "could not build $target in $1"; }
    (cd "$1/target/dist/$target/release" && sha256sum tidegate) >"$1.sums"
    # Room for the second one.
    rm -rf "$1"
}

build "$there/a" 1 0022 UTC
mkdir "$there/somewhere"
build "$there/somewhere/with-a-longer-name" 2 0077 Asia/Tokyo
diff "$there/a.sums" "$there/somewhere/with-a-longer-name.sums" ||
    die "the same commit gave different bytes for $target in another directory"
cat "$there/a.sums"
