#!/usr/bin/env bash
# Makes the Debian 12 that the image is made of, for arm64 boards: target/image/rootfs-arm64.tar
#
#   packaging/image/rootfs.sh
#
# Debian's packages and nothing else: what the image changes in them is packaging/image/build.sh's. Made once, in about ten
# minutes, because every program in it runs under qemu-user; made anew when this script changes or the archive is deleted
# (for Debian's security updates). Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/prepare.sh
. packaging/image/tools.sh

archive=$images/rootfs-arm64.tar
identity=$(sha256sum <"packaging/image/rootfs.sh")
[ ! -e $archive ] || [ "$(cat $archive.identity 2>/dev/null)" != "$identity" ] || exit 0

packages=(
    # What makes it boot, with the kernel's own hooks: what apt upgrades on the board is what boots the next time.
    systemd systemd-sysv udev kmod linux-image-arm64 initramfs-tools busybox-static raspi-firmware
    # The filesystems, and the growth of the last one.
    e2fsprogs dosfstools fdisk
    # The wired network, names, the time.
    dbus iproute2 systemd-resolved systemd-timesyncd ca-certificates
    # For who comes by ssh.
    openssh-server procps nano
)

prepare_foreign
need mmdebstrap mmdebstrap
need arch-test arch-test
install_missing

# No initramfs: update-initramfs does not come to an end under qemu-user. The board makes its own at the kernel's next
# upgrade.
divert='/usr/sbin/update-initramfs'
say "making $archive (ten minutes)"
mkdir -p $images
rm -f $archive $archive.new
mmdebstrap --mode=root --format=tar --architectures=arm64 --variant=minbase --components=main,non-free-firmware \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --essential-hook="chroot \"\$1\" dpkg-divert --quiet --local --rename --add $divert && ln -s /bin/true \"\$1$divert\"" \
    --customize-hook="rm \"\$1$divert\" && chroot \"\$1\" dpkg-divert --quiet --local --rename --remove $divert" \
    bookworm $archive.new "deb http://deb.debian.org/debian bookworm main non-free-firmware" \
    "deb http://deb.debian.org/debian bookworm-updates main non-free-firmware" \
    "deb http://security.debian.org/debian-security bookworm-security main non-free-firmware" >$archive.log 2>&1 ||
    die "could not make $archive: $(tail -n 20 $archive.log)"
mv $archive.new $archive
echo "$identity" >$archive.identity
