#!/usr/bin/env bash
# Prepares the virtual board that tests/hil.rs boots, in target/hil: the image that is flashed on cards, its kernel, a root
# shell for the tests, and a later package. What is there and not older than what it is made of is left as it is; else the
# arm64 package and the image are made from these sources (minutes; a quarter of an hour the first time). Needs root for that.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/prepare.sh
. packaging/image/tools.sh

need_emulator
need qemu-img qemu-utils
need mosquitto mosquitto
need mcopy mtools
need debugfs e2fsprogs
need sfdisk fdisk
install_missing
PATH="$PATH:/usr/sbin:/sbin"

# is_older FILE THAN...: or not there at all. Of a directory every file counts.
is_older() {
    local file=$1
    shift
    [ ! -e "$file" ] || [ -n "$(find "$@" -newer "$file" -type f -print -quit)" ]
}

newest_package() { ls -t target/debian/tidegate_*_arm64.deb 2>/dev/null | head -n 1 || true; }
package=$(newest_package)
# Everything in it but its documents, which change often and do nothing on a board.
if is_older "${package:-none}" src kernel-clock Cargo.toml Cargo.lock rust-toolchain.toml config systemd \
    packaging/{build,deb,toolchain}.sh packaging/{debian,firstboot,completions,requirements.txt,split-symbols} \
    packaging/tidegate.catalog packaging/*.d packaging/*.rules; then
    packaging/build.sh aarch64-unknown-linux-gnu
    packaging/deb.sh aarch64-unknown-linux-gnu
    package=$(newest_package)
fi
image=$images/tidegate-arm64.img
if is_older $image "$package" packaging/image; then packaging/image/build.sh "$package"; fi

there=target/hil
if is_older $there/board.img $image hil/virtual hil/later-package.sh; then
    say "making $there/board.img"
    rm -rf $there
    mkdir -p $there
    cp $images/vmlinuz $images/initrd.img $there/
    echo "console=ttyAMA0 root=LABEL=tidegate-root ro" >$there/cmdline
    hil/later-package.sh "$package" $there/later.deb
    # Where the partitions begin, in bytes: the installer's, then the root.
    partitions=$(sfdisk --dump $image | sed -n 's/^.*start= *\([0-9]*\),.*$/\1/p')
    offsets=$(for start in $partitions; do echo $((start * 512)); done)
    head -n 1 <<<"$offsets" >$there/boot-offset
    cp --sparse=always $image $there/making.img
    # A card is larger than the image.
    truncate --size 4G $there/making.img
    debugfs -w -f /dev/stdin "$there/making.img?offset=$(tail -n 1 <<<"$offsets")" >/dev/null <<END
write hil/virtual/shell.sh /usr/local/sbin/tidegate-hil-shell
write hil/virtual/shell.service /etc/systemd/system/tidegate-hil-shell.service
symlink /etc/systemd/system/multi-user.target.wants/tidegate-hil-shell.service /etc/systemd/system/tidegate-hil-shell.service
END
    mv $there/making.img $there/board.img
fi
say "the virtual board: $there/board.img, with $(basename "$package")"
