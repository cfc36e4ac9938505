#!/usr/bin/env bash
# Installs a package in a booted Debian 12 and holds what the package and the unit promise: install, upgrade, downgrade,
# remove and purge; READY, reload, the serial line, the network and secrets under the whole sandbox; the watchdog; what is
# restarted and what is not; the first boot.
#
#   packaging/test-container.sh [amd64 | arm64]      the newest package of target/debian; without a word the first
#
# The arm64 package runs in the boards' own Debian (packaging/image/rootfs.sh) under qemu's user emulation, and is held to
# install, health, upgrade, downgrade, remove and purge. The rest needs brokers and serial lines in there, and a kernel that is
# asked directly: of the unit, the emulator can do neither LoadCredential= nor PrivateUsers=; nor is the first boot tried in it.
#
# Needs root, and namespaces and mounts allowed. The container has a network of its own: nothing of it is seen outside.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
. packaging/checks.sh

architecture=${1-amd64}
case $architecture in
    amd64) rootfs=$tools/rootfs/bookworm-amd64.tar.gz ;;
    arm64) rootfs=target/image/rootfs-arm64.tar ;;
    *) die "usage: packaging/test-container.sh [amd64 | arm64]" ;;
esac
package=$(ls -t target/debian/tidegate_*_"$architecture".deb 2>/dev/null | head -n 1)
[ -e "$package" ] || die "please make the package first: packaging/build.sh and packaging/deb.sh for $architecture"
[ "$(id -u)" -eq 0 ] || die "please run this as root: it boots a container"
need systemd-nspawn systemd-container
need nsenter util-linux
emulated() { [ "$architecture" != "$(dpkg --print-architecture)" ]; }
if [ "$architecture" = arm64 ]; then
    . packaging/image/tools.sh
    prepare_foreign
    packaging/image/rootfs.sh
fi
need debootstrap debootstrap
install_missing
# A small Debian with what the test needs, made once (two to four minutes).
inside=systemd,systemd-sysv,dbus,udev,iproute2,procps,socat,mosquitto,mosquitto-clients
if [ ! -e $rootfs ]; then
    say "making $rootfs"
    mkdir -p $tools/rootfs
    debootstrap --variant=minbase --include=$inside bookworm $tools/rootfs/making >$tools/rootfs/log
    tar -C $tools/rootfs/making -cf - . | gzip -1 >$rootfs.new
    rm -rf $tools/rootfs/making
    mv $rootfs.new $rootfs
fi

there=$(mktemp -d)
root=$there/root
nspawn=""
finish() {
    if [ -n "$nspawn" ]; then
        kill -KILL "$leader" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    rm -rf "$there"
}
trap finish EXIT

mkdir "$root" "$there/new"
tar -C "$root" -xf $rootfs
mkdir -p "$root/var/log/journal"
cp "$package" "$root/root/old.deb"
# A later version of the package, with another conffile: what an upgrade meets when somebody has edited theirs.
dpkg-deb -R "$package" "$there/new"
sed -i 's/^Version: .*/&+next/' "$there/new/DEBIAN/control"
echo '# New in this version.' >>"$there/new/etc/tidegate/gateway.toml"
dpkg-deb --root-owner-group -b "$there/new" "$root/root/new.deb" >/dev/null
if emulated; then
    mkdir -p "$root/etc/systemd/system/tidegate.service.d"
    printf '[Service]\nLoadCredential=\nPrivateUsers=no\n' >"$root/etc/systemd/system/tidegate.service.d/emulator.conf"
fi

systemd-nspawn --quiet --directory="$root" --machine="tidegate-$$" --boot --register=no --keep-unit \
    --console=read-only --private-network >"$there/console" 2>&1 </dev/null &
nspawn=$!
find_leader() {
    leader=$(pgrep --parent "$nspawn" | head -n 1)
    [ -n "$leader" ]
}
within 30 find_leader || die "the container did not start: $(cat "$there/console")"

# box COMMAND...: in the container, as root.
box() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid -- \
        env -i --chdir=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
sh_box() { box sh -c "$1"; }

explain() {
    box systemctl status --no-pager --full tidegate || true
    box journalctl --no-pager -n 25 -u tidegate
}

booted() { [[ $(box systemctl is-system-running) =~ running|degraded ]]; }
within 90 booted || die "the container did not boot: $(cat "$there/console")"

install() { box apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold --allow-downgrades "$@"; }
active() { [ "$(box systemctl is-active tidegate)" = active ]; }
inactive() { not active; }
main_pid() { box systemctl show -P MainPID tidegate; }
restarts() { box systemctl show -P NRestarts tidegate; }
# A container that cannot be asked proves nothing.
not() { box true && ! "$@"; }
owner() { box stat -c '%U:%G %a' "$1"; }
is_owned() { same "$(owner "$1")" "$2"; }
# alarms NAME: how many of them the cloud has got.
alarms() { sh_box "grep -c '\"type\":\"io.tidegate.rule.$1\"' /root/cloud.log 2>/dev/null || true"; }

# --- Installed, and nothing else done ---

check "it installs" install /root/old.deb
if ! emulated; then
    # Debian's mosquitto runs, and holds the gateway's port.
    began=$SECONDS
    tried() { [ "$(restarts)" -ge "$1" ]; }
    check_within 120 "while something is in its way it is tried again and again" tried 3
    # Three pauses of fifteen seconds; the first may have begun before this looked.
    check "and not more often than the card bears" test $((SECONDS - began)) -ge 28
    check "nor ever given up" same "$(box systemctl show -P StartLimitIntervalUSec tidegate)" 0
    box systemctl disable --quiet --now mosquitto
fi
check_within 60 "it is ready" active
check "it is enabled for the next boot" box systemctl is-enabled tidegate
check "so is what looks on the boot partition" box systemctl is-enabled tidegate-firstboot
check "it is healthy" box tidegate status
doctor() { sh_box "tidegate doctor >/root/doctor 2>&1; cat /root/doctor; grep -q '^ok  *gateway' /root/doctor && ! grep -q '^FAIL' /root/doctor"; }
check "the doctor finds nothing that fails" doctor
listening() { sh_box "ss -Hltnp | grep '\"tidegate\"'"; }
loopback_only() { listening | grep -q ' 127.0.0.1:1883 ' && ! listening | grep -v ' 127.0.0.1:1883 '; }
check "it listens on loopback only" loopback_only
ready=$(sed -n '/^-- /{s///p;q}' packaging/tidegate.catalog)
check "its messages are explained" sh_box "journalctl -u tidegate -x --no-pager MESSAGE_ID=$ready | grep -q 'Defined-By: Tidegate'"
check "the configuration is the gateway's to read and nobody else's" is_owned /etc/tidegate/gateway.toml 'root:tidegate 640'
check "secrets are root's alone" is_owned /etc/tidegate/secrets 'root:root 700'
check "the state is the gateway's" is_owned /var/lib/tidegate 'tidegate:tidegate 750'
check "it runs as its own user" same "$(box ps -o user= -p "$(main_pid)")" tidegate
# Two keys are for systemd from 254 on; what came before says that it does not know them.
verified() {
    not sh_box "systemd-analyze verify --man=no /usr/lib/systemd/system/tidegate*.service 2>&1 |
        grep -vE \"tidegate.service:.* Unknown key( name)? 'Restart(Steps|MaxDelaySec)'\" | grep ."
}
check "systemd finds nothing wrong in its units" verified
for unit in tidegate tidegate-firstboot; do
    check "the exposure of $unit is 1.5 at most" box systemd-analyze security --threshold=15 $unit
done
is_small() { sh_box "awk '/VmRSS/ { print; exit !(\$2 <= 20480) }' /proc/$(main_pid)/status"; }
# Not the emulator's.
emulated || check "its memory is little" is_small
check "members of its group may ask it" sh_box "useradd -G tidegate asker && setpriv --reuid asker --regid asker --init-groups tidegate status"
check "others may not" not sh_box "setpriv --reuid nobody --regid nogroup --clear-groups tidegate status"
check "udev takes the rules" sh_box "! udevadm test /sys/devices/virtual/tty/tty0 2>&1 | grep -E '61-tidegate-serial.rules:[0-9]+ .*(nvalid|nknown|rror)'"

report=/boot/tidegate-report.txt
if emulated; then
    sh_box 'printf "[gateway]\nid = \"box\"\n[mqtt]\nlisten = [\"127.0.0.1:1883\"]\n" >/etc/tidegate/gateway.toml'
else
    . packaging/test-unit.sh

    # --- The boot partition ---

    box cp /root/right.toml /boot/gateway.toml
    check "it takes what lies on the boot partition" box systemctl start tidegate-firstboot
    check "and says so there" box grep -q 'first boot: INSTALLED' $report
    check "it is the configuration" box cmp /root/right.toml /etc/tidegate/gateway.toml
    check "the gateway's to read" is_owned /etc/tidegate/gateway.toml 'root:tidegate 640'
    box rm $report
fi
# From here on an upgrade that looked there again would show: by the report, and by the invocation.
first_boot=$(box systemctl show -P InvocationID tidegate-firstboot)
box systemctl restart tidegate
sh_box 'echo "# Edited since." >>/etc/tidegate/gateway.toml; cp /etc/tidegate/gateway.toml /root/right.toml'

# --- Upgrade, downgrade ---

epoch() { sh_box "tidegate journal ls | sed -n 's/^current: epoch \([^ ]*\) .*/\1/p'"; }
version() { box dpkg-query -W -f '${Version}' tidegate; }
before=$(epoch)
[ -n "$before" ] || die "could not tell the journal's epoch: $(box tidegate journal ls)"
old=$(version)
count=$(alarms HighTemperature)
box chown root:root /root/right.toml
for deb in new old; do
    pid=$(main_pid)
    check "the $deb version installs over the other" install /root/$deb.deb
    again() { active && [ "$(main_pid)" != "$pid" ]; }
    check_within 60 "the gateway is another process of the $deb version" again
    check "what somebody wrote into the configuration stays" box cmp /root/right.toml /etc/tidegate/gateway.toml
    check "the configuration's owner, too" is_owned /etc/tidegate/gateway.toml 'root:tidegate 640'
    check "nobody looks on the boot partition" same "$(box systemctl show -P InvocationID tidegate-firstboot)" "$first_boot"
    check "and nobody reports there" not box test -e $report
    check "the journal goes on" same "$(epoch)" "$before"
    check_within 60 "all of it comes back" box tidegate status
done
check "the old version is there again" same "$(version)" "$old"
check "no alarm was raised twice" same "$(alarms HighTemperature)" "$count"

# --- Removal ---

check "it is removed" box apt-get remove -qq -y tidegate
check "and stopped" inactive
check "nothing of it runs" not box pgrep -x tidegate
check "the journal is kept" box test -d /var/lib/tidegate/journal/current
check "the configuration is kept" box cmp /root/right.toml /etc/tidegate/gateway.toml
check "it is installed again" install /root/old.deb
check_within 60 "it is ready again" active
check "the journal goes on after a removal" same "$(epoch)" "$before"

package_paths="/var/lib/tidegate /etc/tidegate /run/tidegate /usr/lib/systemd/system/tidegate* /etc/systemd/system/*/tidegate*"
check "(all that a purge is to delete is there)" sh_box "ls -d $package_paths"
check "it is purged" box apt-get purge -qq -y tidegate
check "nor explained" not sh_box "journalctl --dump-catalog $ready | grep -q Tidegate"
check "nothing of its data, its configuration and its unit is left" not sh_box "ls -d $package_paths 2>/dev/null | grep ."
check "its user is not given to anybody else" box getent passwd tidegate
check "it is installed after a purge" install /root/new.deb
check_within 60 "it is ready after a purge" active
check "as new" not same "$(epoch)" "$before"
# As whoever keeps the journal on another disk has it.
box systemctl stop tidegate
box mount -t tmpfs tmpfs /var/lib/tidegate
box touch /var/lib/tidegate/something
check "it is removed and purged in one, its state a mount point" box apt-get purge -qq -y tidegate
check "which is empty then" not sh_box "ls -A /var/lib/tidegate | grep ."
check "and the package gone" not sh_box "dpkg-query -W tidegate 2>/dev/null | grep ."

