# Sourced by build.sh for --base: an existing image of Raspberry Pi OS, or one laid out as it is (a FAT partition, then an
# ext4 root), gets the package.

need losetup mount
need xz xz-utils
install_missing
name=$(basename "$base" .xz)
image=$there/$(basename "$name" .img)-tidegate.img
case "$base" in
    *.img.xz) xz --decompress --stdout "$base" >"$image" ;;
    *.img) cp --sparse=always "$base" "$image" ;;
    *) die "$base: an .img or .img.xz is wanted" ;;
esac

# The two partitions, where they begin and how long they are, in bytes.
table=$(sfdisk --json "$image" | python3 -c '
import json, sys
table = json.load(sys.stdin)["partitiontable"]
for partition in table["partitions"]:
    print(partition["start"] * 512, partition["size"] * 512)') || die "could not read the partitions of $base"
[ "$(wc -l <<<"$table")" -eq 2 ] || die "$base has not the two partitions of Raspberry Pi OS"

root=$there/root
mkdir "$root"
mounted=()
finish() {
    local each
    for each in ${mounted[@]+"${mounted[@]}"}; do umount "$each" || true; done
    rm -rf "$there"
}
# mount_part N WHERE
mount_part() {
    local start size
    read -r start size <<<"$(sed -n "$1p" <<<"$table")"
    mount -o "loop,offset=$start,sizelimit=$size" "$image" "$2" ||
        die "could not mount partition $1 of $base (loop devices are needed)"
    mounted=("$2" ${mounted[@]+"${mounted[@]}"})
}
mount_part 2 "$root"
[ "$(dpkg --root="$root" --print-architecture 2>/dev/null || true)" ] && [ -e "$root/etc/os-release" ] ||
    die "the second partition of $base holds no Debian"
chroot "$root" /usr/bin/dpkg --print-architecture | grep -qx arm64 || die "$base is not of 64 bits"
# Since Debian 12 the boot partition is here.
[ -d "$root/boot/firmware" ] || die "$base is older than Debian 12"
mount_part 1 "$root/boot/firmware"

install_package "$root"
# Whatever that OS leaves there for its first boot stays; a number would be the same on all cards.
! grep -qxE '[0-9a-f]{32}' "$root/etc/machine-id" 2>/dev/null || : >"$root/etc/machine-id"

for each in "${mounted[@]}"; do umount "$each"; done
mounted=()
mv "$image" $images/
say "$images/$(basename "$image")"
