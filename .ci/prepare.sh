# Sourced by ./test and ./demo: installs what is missing, says so, and touches nothing that is there.

say() { printf '%s\n' "$*"; }

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# install_packages PACKAGE...: from the distribution.
install_packages() {
    command -v apt-get >/dev/null || die "please install these and run this again (there is no apt-get here): $*"
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "please install these as root and run this again: apt-get install $*"
        root=(sudo)
    fi
    say "installing $*"
    # The list of packages may be older than the archive: refresh it once if the first try fails.
    local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@")
    "${install[@]}" >/dev/null 2>&1 && return
    "${root[@]}" apt-get update -qq >/dev/null
    "${install[@]}" >/dev/null
}

# need PROGRAM PACKAGE: notes the package if the program is missing. sbin may not be on a user's path.
missing=()
need() {
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing+=("$2")
}

install_missing() {
    if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi
}

# The toolchain: rust-toolchain.toml names the version, rustup fetches it when cargo is first called.
prepare_rust() {
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null && return
    command -v curl >/dev/null || install_packages curl ca-certificates
    say "installing the Rust toolchain with rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --quiet --profile minimal --default-toolchain none --no-modify-path >/dev/null
    PATH="$HOME/.cargo/bin:$PATH"
}
