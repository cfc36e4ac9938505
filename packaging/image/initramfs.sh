# Sourced by build.sh: the first initramfs of an image, made on this machine.

# What may stand between a board's processor and its card, stick or disk. Directories of the kernel's modules.
drivers=(
    block bus clk dma firmware gpio i2c/busses mailbox mfd mmc nvme pci phy pinctrl power regulator reset scsi soc spi
    usb/common usb/core usb/dwc2 usb/dwc3 usb/host usb/misc usb/storage virtio
)

# make_initramfs ROOT OUT: with the kernel and the busybox of ROOT. It holds init and the modules above with all they need.
make_initramfs() {
    local root=$1 out=$2 there modules version
    there=$(mktemp -d)
    modules=$(echo "$root"/usr/lib/modules/*)
    version=${modules##*/}
    [ -d "$modules" ] || die "could not tell which kernel $root has: $modules"
    mkdir -p "$there"/{bin,dev,proc,sys,root} "$there/lib/modules/$version"
    cp packaging/image/initramfs/init "$there/"
    cp "$root/bin/busybox" "$there/bin/"
    # The kernel itself asks for checksums by this path.
    mkdir "$there/sbin"
    ln -s /bin/busybox "$there/sbin/modprobe"
    {
        (cd "$modules" && find "${drivers[@]/#/kernel/drivers/}" kernel/fs/ext4 -name '*.ko*' 2>/dev/null)
        # ext4 asks for it by what it does, not by name.
        echo kernel/crypto/crc32c_generic.ko
        echo kernel/arch/arm64/crypto/crc32-ce.ko
    } | awk 'NR == FNR { needs[$1] = $0; next }
             $0 ":" in needs { n = split(needs[$0 ":"], all, " "); print $0; for (i = 2; i <= n; i++) print all[i] }' \
        "$modules/modules.dep" - | LC_ALL=C sort -u |
        tar -C "$modules" -cf - -T - modules.builtin modules.order modules.builtin.modinfo | tar -C "$there/lib/modules/$version" -xf -
    depmod -b "$there" "$version"
    (cd "$there" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n >"$out"
    rm -rf "$there"
}
