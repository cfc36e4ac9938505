#!/usr/bin/env bash
# Makes the Debian package of what packaging/build.sh has built: target/debian/tidegate_VERSION_ARCHITECTURE.deb
#
#   packaging/deb.sh aarch64-unknown-linux-gnu | armv7-unknown-linux-gnueabihf | x86_64-unknown-linux-gnu
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
. packaging/toolchain.sh

CARGO_DEB=3.8.0
# 3 MB for the boards, for installations over a slow uplink.
MOST=3000000

target=${1-}
known_target "$target"
[ -e "target/dist/$target/release/tidegate" ] || die "please build it first: packaging/build.sh $target"
prepare_rust
there=$PWD/$tools/cargo-deb-$CARGO_DEB
if [ ! -x "$there/bin/cargo-deb" ]; then
    say "installing cargo-deb $CARGO_DEB into $there"
    cargo install --quiet --locked --root "$there" --target-dir "$there/build" cargo-deb --version $CARGO_DEB
    rm -rf "$there/build"
fi
need lintian lintian
install_missing

# The licences of what is linked in: each crate's name and licence, then every text once.
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
crates=$(cargo tree --locked --edges normal --target "$target" --prefix none --format '{p}|{l}' |
    grep -v '(\*)$' | grep -v "$PWD" | sed 's/ v\([^ |]*\)[^|]*|/-\1|/' | LC_ALL=C sort -u)
{
    sed 's/|/: /' <<<"$crates"
    cut -d '|' -f 1 <<<"$crates" | while read -r crate; do
        find "$sources"/*/"$crate" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \)
    done | while read -r text; do
        sum=$(sha256sum <"$text")
        [[ "${seen-}" != *"$sum"* ]] || continue
        seen="${seen-}$sum"
        printf '\n---- %s ----\n\n' "${text#"$sources"/*/}"
        cat "$text"
    done
} | gzip -9n >target/dist/third-party-licences.gz

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
CARGO_TARGET_DIR=$PWD/target/dist "$there/bin/cargo-deb" --quiet --target "$target" --no-build --no-strip --output target/debian/
package=$(ls -t target/debian/tidegate_*_"$(debian_architecture "$target")".deb | head -n 1)
size=$(stat -c %s "$package")
lintian --allow-root --fail-on error,warning "$package"
[ "$size" -le $MOST ] || [[ $target == x86_64-* ]] || die "$package has $size bytes; $MOST are the most"
say "$package: $size bytes"
