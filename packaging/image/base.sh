# shellcheck shell=bash
# Sourced by build.sh for --base: an existing image of Raspberry Pi OS, or one laid out as it is (a boot partition, then an
# ext4 root), gets the package. Only the second partition is changed.

need mount mount
need xz xz-utils
need_python
install_missing
name=$(basename "$base" .xz)
image=$there/$(basename "$name" .img)-tidegate.img
case "$base" in
    *.img.xz) xz --decompress --stdout "$base" >"$image" ;;
    *.img) cp --sparse=always "$base" "$image" ;;
    *) die "$base: an .img or .img.xz is wanted" ;;
esac

# Where the root begins and how long it is, in bytes.
read -r start size <<<"$(sfdisk --json "$image" | python3 -c '
import json, sys
partitions = json.load(sys.stdin)["partitiontable"]["partitions"]
if len(partitions) == 2:
    print(partitions[1]["start"] * 512, partitions[1]["size"] * 512)')"
[ -n "$size" ] || die "$base has not the two partitions of Raspberry Pi OS"

root=$there/root
mkdir "$root"
finish() {
    if mountpoint -q "$root"; then umount "$root"; fi
    rm -rf "$there"
}
mount -o "loop,offset=$start,sizelimit=$size" "$image" "$root" || die "could not mount the second partition of $base (it needs loop devices)"
[ "$(chroot "$root" /usr/bin/dpkg --print-architecture 2>/dev/null)" = arm64 ] || die "the second partition of $base is no Debian of 64 bits"
# Before Debian 12 the boot partition was elsewhere, and systemd too old.
[ -d "$root/boot/firmware" ] || die "$base is older than Debian 12"
install_package "$root"
# Whatever that OS leaves there for its first boot stays; a number would be the same on all cards.
if grep -qxE '[0-9a-f]{32}' "$root/etc/machine-id" 2>/dev/null; then : >"$root/etc/machine-id"; fi
umount "$root"
mv "$image" $images/
say "$images/$(basename "$image")"
