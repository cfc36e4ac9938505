#!/usr/bin/env bash
# Runs the library's tests as a 64-bit and a 32-bit board would, under qemu's user emulation.
#
#   packaging/test-foreign.sh [TARGET...] [-- FILTER...]      without a target: aarch64 and armv7
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
. packaging/toolchain.sh

targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --) shift && break ;;
        *) known_target "$1" && targets+=("$1") && shift ;;
    esac
done
[ ${#targets[@]} -gt 0 ] || targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf)

# The lengths of ./test: emulation is ten times slower, and it is the other architecture that is asked here.
unset TIDEGATE_LONG
prepare_rust
prepare_zig
for target in "${targets[@]}"; do
    choose_rustc "$target"
    machine=${target%%-*} libraries=/usr/$(gnu_name "$target")
    [ "$machine" != armv7 ] || machine=arm
    need "qemu-$machine-static" qemu-user-static
    [ -e "$libraries/lib/libc.so.6" ] || missing+=("libc6-$(debian_architecture "$target")-cross")
    install_missing
    environment=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")
    export "${environment}_RUNNER=qemu-$machine-static -L $libraries"
    [ -z "$STD_SYSROOT" ] || export "${environment}_RUSTFLAGS=--sysroot $STD_SYSROOT"
    say "the library's tests on $target"
    cargo-zigbuild test --quiet --locked --lib --target "$target.$GLIBC" -- "$@"
done
