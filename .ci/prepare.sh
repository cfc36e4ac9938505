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
    # The list of packages may be older than the archive: it is refreshed once if the first try fails.
    local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@")
    # Debian starts the services that it installs, on the ports that everybody uses. The tests start their own. A shell
    # of its own takes the policy away again however this ends: with it there, no service would ever be started.
    (
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap '"${root[@]}" rm -f $policy' EXIT
            printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
            "${root[@]}" chmod +x $policy
        fi
        "${install[@]}" >/dev/null 2>&1 ||
            { "${root[@]}" apt-get update -qq >/dev/null && "${install[@]}" >/dev/null; }
    )
}

# need PROGRAM PACKAGE: notes the package if the program is missing. sbin may not be on a user's path.
missing=()
need() {
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing+=("$2")
}

install_missing() {
    if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi
    missing=()
}

# The toolchain: rust-toolchain.toml names the version, rustup fetches it when cargo is first called. rustc links with the
# C compiler. The script is the one of https://sh.rustup.rs, from where it fetches everything else.
prepare_rust() {
    printf 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null || install_packages gcc libc6-dev
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null && return
    command -v curl >/dev/null || install_packages curl ca-certificates
    say "installing the Rust toolchain with rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh |
        sh -s -- -y --quiet --profile minimal --default-toolchain none --no-modify-path >/dev/null
    PATH="$HOME/.cargo/bin:$PATH"
}

# Where the tests find the receivers' languages: target/tools/python/bin/python3, target/tools/node/node_modules.
tools=target/tools

need_python() {
    need python3 python3
    # Debian packs the part of Python that makes environments separately.
    ! command -v python3 >/dev/null || python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
}

need_node() {
    need node nodejs
    need npm npm
}

# prepare_python: the pinned packages of tests/tools/requirements.txt. Asks nobody if they are there already.
prepare_python() {
    local wanted=tests/tools/requirements.txt there=$tools/python
    cmp -s $wanted $there/requirements.txt && $there/bin/python3 -c '' 2>/dev/null && return
    say "installing the Python packages of $wanted into $there"
    rm -rf $there
    python3 -m venv $there
    $there/bin/python3 -m pip install --quiet --disable-pip-version-check --requirement $wanted
    cp $wanted $there/
}

# prepare_node: the same for tests/tools/package-lock.json.
prepare_node() {
    local wanted=tests/tools there=$tools/node
    cmp -s $wanted/package-lock.json $there/package-lock.json && [ -e $there/complete ] && return
    say "installing the JavaScript packages of $wanted/package-lock.json into $there"
    rm -rf $there
    mkdir -p $there
    cp $wanted/package.json $wanted/package-lock.json $there/
    # No install scripts: none of these packages needs one, and one of them would report home.
    (cd $there && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline --loglevel=error >/dev/null)
    touch $there/complete
}
