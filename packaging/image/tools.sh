# Sourced by the scripts beside it, after .ci/prepare.sh: where things are, and how programs of the board run here.

images=target/image

# prepare_foreign: arm64 programs run on this machine, in a chroot, too.
prepare_foreign() {
    [ "$(id -u)" -eq 0 ] || die "please run this as root: it makes a Debian with all its owners"
    [ "$(uname -m)" != aarch64 ] || return 0
    local known=/proc/sys/fs/binfmt_misc
    need qemu-aarch64-static qemu-user-static
    need /usr/lib/systemd/systemd-binfmt systemd
    install_missing
    [ -e $known/register ] || mount -t binfmt_misc binfmt_misc $known
    [ -e $known/qemu-aarch64 ] || /usr/lib/systemd/systemd-binfmt
    # F: the kernel keeps the interpreter open, so that a chroot finds it.
    grep -q '^flags: .*F' $known/qemu-aarch64 || die "could not make the kernel run arm64 programs: see $known/qemu-aarch64"
}

# need_emulator: a board. qemu's packages have to be of one version, and one of them may be there from somewhere else.
need_emulator() {
    command -v qemu-system-aarch64 >/dev/null && return
    case "$(dpkg-query --show --showformat '${Version}' qemu-utils 2>/dev/null)" in
        *~bpo12+*) install_packages --target-release bookworm-backports qemu-system-arm ;;
        *) install_packages qemu-system-arm ;;
    esac
}
