#!/usr/bin/env bash
# Makes the image that an installer flashes, from the arm64 package:
#
#   packaging/image/build.sh PACKAGE.deb                    target/image/tidegate-arm64.img
#   packaging/image/build.sh PACKAGE.deb --base OS.img      target/image/OS-tidegate.img: an existing image of Raspberry Pi
#                                                           OS (.img or .img.xz, 64 bits), with the package in it
#
# The first: Debian 12, a FAT partition for the bootloader and the installer, an ext4 root that grows to the card at the
# first boot. The kernel and its initramfs lie beside it (vmlinuz, initrd.img), for an emulator. The second changes nothing
# else in what it is given. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/prepare.sh
. packaging/image/tools.sh
. packaging/image/initramfs.sh

usage="usage: $0 PACKAGE.deb [--base OS.img]"
package=${1-}
base=""
case "$#:${2-}" in
    1:) ;;
    3:--base) base=$3 ;;
    *) die "$usage" ;;
esac
[ -e "$package" ] || die "$usage"
[ "$(dpkg-deb --field "$package" Package Architecture | tr -d '\n')" = "Package: tidegateArchitecture: arm64" ] ||
    die "$package is not Tidegate's package for arm64: packaging/build.sh and packaging/deb.sh aarch64-unknown-linux-gnu make it"
[ -z "$base" ] || [ -e "$base" ] || die "there is no $base"

prepare_foreign
need sfdisk fdisk
need unshare util-linux
mkdir -p $images
there=$(mktemp -d -p $images making.XXXXXX)
there=$PWD/$there
finish() { rm -rf "$there"; }
trap finish EXIT

# in_root ROOT COMMAND...: as on the board, with a /proc that is gone afterwards.
in_root() {
    unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$@"' \
        sh "$@" >"$there/log" 2>&1 || die "failed in the image: ${*:2}
$(cat "$there/log")"
}

# install_package ROOT: as dpkg does it on the board; its units are enabled, nothing is started.
install_package() {
    cp "$package" "$1/tidegate.deb"
    in_root "$1" env DEBIAN_FRONTEND=noninteractive dpkg --install /tidegate.deb
    rm "$1/tidegate.deb"
}

# Each card is a machine of its own: the gateway's journal tells by this number that its card was cloned.
forget_machine() {
    : >"$1/etc/machine-id"
    rm -f "$1"/var/lib/dbus/machine-id "$1"/var/lib/systemd/random-seed "$1"/etc/ssh/ssh_host_*
}

if [ -n "$base" ]; then
    . packaging/image/base.sh
    exit 0
fi

need mkfs.ext4 e2fsprogs
need mkfs.vfat dosfstools
need mcopy mtools
need cpio cpio
need depmod kmod
install_missing
packaging/image/rootfs.sh

root=$there/root
boot=$root/boot/firmware
mkdir "$root"
tar -C "$root" -xf $images/rootfs-arm64.tar
cp -RT --no-preserve=ownership packaging/image/root "$root"
chmod 755 "$root"/usr/local/sbin/*
ln -sfn /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
in_root "$root" systemctl --quiet enable systemd-networkd grow-root take-keys ssh
# It waits for a network; no unit of ours does.
in_root "$root" systemctl --quiet disable systemd-networkd-wait-online
install_package "$root"

kernel=$(echo "$root"/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}
make_initramfs "$root" "$root/boot/initrd.img-$version"
cp "$kernel" "$there/vmlinuz"
cp "$root/boot/initrd.img-$version" "$there/initrd.img"
# The bootloader's files, the kernel's device trees, config.txt and cmdline.txt: Debian's own hook writes them, now and at
# each upgrade of the kernel.
cp "$root"/usr/lib/raspi-firmware/* "$boot/"
in_root "$root" env DEB_MAINT_PARAMS=configure /etc/kernel/postinst.d/z50-raspi-firmware "$version"
forget_machine "$root"
find "$root/var/log" "$root/var/cache/apt" "$root/var/lib/apt/lists" -type f -delete

# The boot partition: two kernels and two initramfs of Debian's own, in the middle of an upgrade.
boot_mib=512
root_mib=$(($(du -sxm --exclude=boot/firmware "$root" | cut -f 1) * 115 / 100 + 200))
truncate -s ${boot_mib}M "$there/boot.img"
mkfs.vfat -F 32 -n TIDEGATE "$there/boot.img" >/dev/null
sed 's/$/\r/' packaging/image/boot/tidegate-readme.txt >"$boot/tidegate-readme.txt"
mcopy -s -i "$there/boot.img" "$boot"/* ::
rm -rf "${boot:?}"/*
truncate -s ${root_mib}M "$there/root.img"
mkfs.ext4 -q -L tidegate-root -d "$root" "$there/root.img"

image=$there/tidegate-arm64.img
truncate -s $((4 + boot_mib + root_mib))M "$image"
# A table of the old kind: not every Raspberry Pi starts from a GPT.
sfdisk --quiet "$image" <<END
label: dos
start=4MiB, size=${boot_mib}MiB, type=c, bootable
start=$((4 + boot_mib))MiB, type=83
END
dd if="$there/boot.img" of="$image" bs=1M seek=4 conv=notrunc,sparse status=none
dd if="$there/root.img" of="$image" bs=1M seek=$((4 + boot_mib)) conv=notrunc,sparse status=none
mv "$there/vmlinuz" "$there/initrd.img" "$image" $images/
say "$images/tidegate-arm64.img: $((4 + boot_mib + root_mib)) MiB, for a card of 4 GB or more"
