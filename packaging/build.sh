#!/usr/bin/env bash
# Builds the binary that ships: for glibc 2.28 (Debian 10, Raspberry Pi OS of 2021) and later, its symbols beside it.
#
#   packaging/build.sh aarch64-unknown-linux-gnu        64-bit boards
#   packaging/build.sh armv7-unknown-linux-gnueabihf    32-bit boards from ARMv7 on (Raspberry Pi 2 and later)
#   packaging/build.sh x86_64-unknown-linux-gnu
#
# What comes out: target/dist/TARGET/release/tidegate, and its symbols in tidegate.debug. The same commit gives the same
# bytes, wherever it is checked out and whoever builds, given one rustc: packaging/test-reproducible.sh holds that of
# what ships. (Of the symbols it does not hold: zig's own C files name the directory in theirs.)
#
# The compiler is rustup's if it has or can fetch the target, else Debian's rustc-web; zig links, because it brings the
# C library of any age along. Everything that is fetched goes into target/tools; Debian packages are installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
. packaging/toolchain.sh

target=${1-}
known_target "$target"
prepare_rust
choose_rustc "$target"
prepare_zig
need "$(binutils "$target")objcopy" "$(binutils_package "$target")"
install_missing

# Reproducible: no path of this machine in the binary, and no time but that of the commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
cargo fetch --quiet --locked --target "$target"
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
sysroot=$("$RUSTC" --print sysroot)
remap=("$PWD=/tidegate" "$sysroot/lib/rustlib/src/rust=/rust")
for registry in "$sources"/*/; do remap+=("${registry%/}=/crates"); done
CARGO_ENCODED_RUSTFLAGS=${STD_SYSROOT:+--sysroot$'\x1f'$STD_SYSROOT}
c_flags=""
for pair in "${remap[@]}"; do
    CARGO_ENCODED_RUSTFLAGS+=${CARGO_ENCODED_RUSTFLAGS:+$'\x1f'}--remap-path-prefix=$pair
    c_flags+=" -ffile-prefix-map=$pair"
done
export CARGO_ENCODED_RUSTFLAGS
export "CFLAGS_${target//-/_}=$c_flags"

# The build id is the commit's, not the linker's sum over everything: that would count the symbols, too. Said to the last
# step only, so that the next commit need not compile its dependencies again.
identity=$(printf '%s %s' "$target" "$(git describe --always --abbrev=40 --dirty --exclude '*')" | sha1sum | cut -d ' ' -f 1)
cargo-zigbuild rustc --release --locked --bin tidegate --target "$target.$GLIBC" -- -Clink-arg=-Wl,--build-id=0x"$identity"

# Copied first: cargo would take a stripped binary in its directory for its own.
# Laid out as cargo does, for cargo-deb.
out=target/dist/$target/release
mkdir -p "$out"
rm -f "$out/tidegate" "$out/tidegate.debug"
cp "target/$target/release/tidegate" "$out/"
OBJCOPY=$(binutils "$target")objcopy packaging/split-symbols "$out/tidegate"

newest=$(LC_ALL=C readelf --version-info "$out/tidegate" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1)
[ -n "$newest" ] || die "could not tell which glibc $out/tidegate needs"
[ "$(printf '%s\n' "$newest" $GLIBC | sort -V | tail -n 1)" = $GLIBC ] ||
    die "$out/tidegate needs glibc $newest; it should run from $GLIBC on"
say "$out/tidegate: $(stat -c %s "$out/tidegate") bytes, needs glibc $newest or later"
