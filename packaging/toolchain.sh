# Sourced by the scripts beside it, after .ci/prepare.sh: the compilers for the boards, found or fetched.

GLIBC=2.28

known_target() {
    case "$1" in
        aarch64-unknown-linux-gnu | armv7-unknown-linux-gnueabihf | x86_64-unknown-linux-gnu) ;;
        *) die "usage: $0 aarch64-unknown-linux-gnu | armv7-unknown-linux-gnueabihf | x86_64-unknown-linux-gnu" ;;
    esac
}

debian_architecture() {
    case "$1" in
        aarch64-*) echo arm64 ;;
        armv7-*) echo armhf ;;
        x86_64-*) echo amd64 ;;
    esac
}

# gnu_name TARGET: what Debian's compilers and libraries for it are called.
gnu_name() {
    case "$1" in
        aarch64-*) echo aarch64-linux-gnu ;;
        armv7-*) echo arm-linux-gnueabihf ;;
        x86_64-*) echo x86_64-linux-gnu ;;
    esac
}

binutils() { echo "$(gnu_name "$1")-"; }

binutils_package() { echo "binutils-$(gnu_name "$1" | tr _ -)"; }

# choose_rustc TARGET: sets RUSTC, and STD_SYSROOT if the target's standard library does not lie beside it.
choose_rustc() {
    export RUSTC
    STD_SYSROOT=""
    if command -v rustup >/dev/null && rustup target add "$1" >/dev/null 2>/dev/null; then
        RUSTC=$(rustup which rustc)
        return
    fi
    # rustup can fetch nothing here. Debian has a compiler and, for its own architectures, the standard library.
    command -v apt-get >/dev/null || die "please run this where rustup can fetch it, or on Debian: rustup target add $1"
    need curl curl
    [ -x /usr/bin/rustc ] || missing+=(rustc-web)
    install_missing
    RUSTC=/usr/bin/rustc
    [ "$(debian_architecture "$1")" != "$(dpkg --print-architecture)" ] || return 0
    local version there=$PWD/target/tools/rust-std/$1
    version=$(dpkg-query --show --showformat '${Version}' rustc-web)
    STD_SYSROOT=$there/usr
    [ "$(cat "$there/version" 2>/dev/null)" != "$version" ] || return 0
    # From the directory that rustc-web came from: apt itself may choose an older version of a foreign architecture,
    # and a standard library of another version does not link (E0514).
    local pool
    pool=$(apt-get download --print-uris "rustc-web=$version" | sed -n "s/^'\(.*\)\/[^/]*'.*/\1/p")
    [ -n "$pool" ] || die "could not tell where rustc-web $version comes from (apt-get update?)"
    say "fetching the standard library of rustc-web $version for $1"
    rm -rf "$there"
    mkdir -p "$there"
    curl --fail --silent --show-error --output "$there/std.deb" \
        "$pool/libstd-rust-web-dev_$(sed 's/^[0-9]*://; s/+/%2b/g; s/~/%7e/g' <<<"$version")_$(debian_architecture "$1").deb"
    dpkg -x "$there/std.deb" "$there"
    rm "$there/std.deb"
    echo "$version" >"$there/version"
}

# prepare_zig: zig and cargo-zigbuild as packaging/requirements.txt pins them, on PATH.
prepare_zig() {
    local wanted=packaging/requirements.txt there=$PWD/$tools/zig
    need_python
    install_missing
    if ! cmp -s $wanted "$there/requirements.txt"; then
        say "installing the Python packages of $wanted into $there"
        rm -rf "$there"
        python3 -m venv "$there"
        "$there/bin/python3" -m pip install --quiet --disable-pip-version-check --requirement $wanted
        cp $wanted "$there/"
    fi
    PATH="$there/bin:$PATH"
}
