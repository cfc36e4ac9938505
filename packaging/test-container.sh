#!/usr/bin/env bash
# Installs the x86_64 package in a booted Debian 12 and holds what the package and the unit promise: install, upgrade,
# downgrade, remove and purge; READY, reload, the serial line, the network and secrets under the whole sandbox; the
# watchdog; what is restarted and what is not.
#
#   packaging/test-container.sh [PACKAGE]      without a package: the newest of target/debian
#
# Needs root, and namespaces and mounts allowed. The container has a network of its own: nothing of it is seen outside.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh

package=${1-$(ls -t target/debian/tidegate_*_amd64.deb 2>/dev/null | head -n 1)}
[ -e "$package" ] || die "please make the package first: packaging/build.sh and packaging/deb.sh x86_64-unknown-linux-gnu"
[ "$(id -u)" -eq 0 ] || die "please run this as root: it boots a container"
need debootstrap debootstrap
need systemd-nspawn systemd-container
need nsenter util-linux
install_missing
# A small Debian with what the test needs, made once (two to four minutes).
rootfs=$tools/rootfs/bookworm-amd64.tar.gz
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
tar -C "$root" -xzf $rootfs
mkdir -p "$root/var/log/journal"
cp "$package" "$root/root/old.deb"
# A later version of the package, with another conffile: what an upgrade meets when somebody has edited theirs.
dpkg-deb -R "$package" "$there/new"
sed -i 's/^Version: .*/&+next/' "$there/new/DEBIAN/control"
echo '# New in this version.' >>"$there/new/etc/tidegate/gateway.toml"
dpkg-deb --root-owner-group -b "$there/new" "$root/root/new.deb" >/dev/null

systemd-nspawn --quiet --directory="$root" --machine="tidegate-$$" --boot --register=no --keep-unit \
    --console=read-only --private-network >"$there/console" 2>&1 </dev/null &
nspawn=$!
# within SECONDS COMMAND...: waits until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >"$there/last" 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
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

# check NAME COMMAND..., check_within SECONDS NAME COMMAND...: a promise.
check() { check_within 0 "$@"; }
check_within() {
    local seconds=$1 name=$2
    shift 2
    if within "$seconds" "$@"; then
        say "ok      $name"
        return
    fi
    say "FAILED  $name: $*"
    cat "$there/last"
    box systemctl status --no-pager --full tidegate || true
    box journalctl --no-pager -n 25 -u tidegate || true
    exit 1
}

booted() { [[ $(box systemctl is-system-running) =~ running|degraded ]]; }
within 90 booted || die "the container did not boot: $(cat "$there/console")"

install() { box apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold --allow-downgrades "$@"; }
active() { [ "$(box systemctl is-active tidegate)" = active ]; }
inactive() { ! active; }
main_pid() { box systemctl show -P MainPID tidegate; }
restarts() { box systemctl show -P NRestarts tidegate; }
not() { ! "$@"; }
same() { [ "$1" = "$2" ] || { echo "$1, not $2" && return 1; }; }
owner() { box stat -c '%U:%G %a' "$1"; }
is_owned() { same "$(owner "$1")" "$2"; }
said() { box journalctl -u tidegate --since "@$since" --no-pager | grep -q -- "$1"; }
alarms() { sh_box "grep -c '\"type\":\"io.tidegate.rule.$1\"' /root/cloud.log || true"; }
reads() { sh_box "printf '{\"t\":$1}\n' >/dev/boiler-end"; }

# --- Installed, and nothing else done ---

check "it installs" install /root/old.deb
# Debian's mosquitto runs, and holds the gateway's port: more tries than systemd's own limit of five.
tried() { [ "$(restarts)" -gt 6 ]; }
check_within 120 "while something is in its way it is tried again and again" tried
box systemctl disable --quiet --now mosquitto
check_within 60 "it is ready" active
check "it is enabled for the next boot" box systemctl is-enabled tidegate
check "so is what looks on the boot partition" box systemctl is-enabled tidegate-firstboot
check "it is healthy" box tidegate status
check "it listens on loopback only" sh_box "ss -Hltn | grep -q 127.0.0.1:1883 && ! ss -Hltn | grep -v '127.0.0.1:1883 '"
check "the configuration is the gateway's to read and nobody else's" is_owned /etc/tidegate/gateway.toml 'root:tidegate 640'
check "secrets are root's alone" is_owned /etc/tidegate/secrets 'root:root 700'
check "the state is the gateway's" is_owned /var/lib/tidegate 'tidegate:tidegate 750'
check "it runs as its own user" same "$(box ps -o user= -p "$(main_pid)")" tidegate
check "its exposure is 1.5 at most" box systemd-analyze security --threshold=15 tidegate
is_small() { sh_box "awk '/VmRSS/ { print; exit !(\$2 <= 20480) }' /proc/$(main_pid)/status"; }
check "its memory is little" is_small
check "members of its group may ask it" sh_box "useradd -G tidegate asker && setpriv --reuid asker --regid asker --init-groups tidegate status"
check "others may not" not sh_box "setpriv --reuid nobody --regid nogroup --clear-groups tidegate status"
check "udev takes the rules" sh_box "! udevadm test /sys/devices/virtual/tty/tty0 2>&1 | grep -E '61-tidegate-serial.rules:[0-9]+ .*(nvalid|nknown|rror)'"

# --- A serial line, a network and a secret, under the whole sandbox ---

box ip link add site0 type veth peer name site1
box ip addr add 10.9.8.7/24 dev site0
box ip link set site0 up
box ip link set site1 up
sh_box '
set -e
echo 10.9.8.7 cloud.test >>/etc/hosts
cat >/root/cloud.conf <<END
listener 1884 10.9.8.7
allow_anonymous false
password_file /etc/mosquitto/cloud.passwords
END
touch /etc/mosquitto/cloud.passwords
mosquitto_passwd -b /etc/mosquitto/cloud.passwords gateway "a secret of root"
mosquitto_passwd -b /etc/mosquitto/cloud.passwords reader reader
chown mosquitto /etc/mosquitto/cloud.passwords
umask 077
printf "a secret of root" >/etc/tidegate/secrets/cloud
systemd-run --quiet --unit=cloud mosquitto -c /root/cloud.conf
'
plug_in() {
    box systemd-run --quiet --collect --unit=boiler socat pty,raw,echo=0,link=/dev/boiler,group=dialout,mode=660 \
        pty,raw,echo=0,link=/dev/boiler-end
}
plug_in
check_within 30 "(the cloud is there)" sh_box "ss -Hltn | grep -q 10.9.8.7:1884"
sh_box "systemd-run --quiet --unit=reader sh -c \
    'exec mosquitto_sub -h 10.9.8.7 -p 1884 -u reader -P reader -q 1 -t tidegate/+/events/# >/root/cloud.log'"
sh_box 'cat >/etc/tidegate/gateway.toml <<END
[gateway]
id = "box"
[mqtt]
listen = ["0.0.0.0:1883"]
allow-anonymous = true
[[serial]]
name = "boiler"
port = "/dev/boiler"
baud = 9600
format = "json"
device = "boiler"
[[serial.metric]]
name = "temperature"
at = "/t"
[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
clear = 28.0
[[sink.mqtt]]
name = "cloud"
url = "mqtt://cloud.test:1884"
username = "gateway"
password-file = "/run/credentials/tidegate.service/secret_cloud"
from = "oldest"
END'
since=$(date +%s)
check "it restarts with another configuration" box systemctl restart tidegate
check_within 30 "a name is resolved, the password is root's and the uplink is up" said 'connected'
check "nobody but root can read the secret on the disk" not sh_box \
    "setpriv --reuid tidegate --regid tidegate --clear-groups cat /etc/tidegate/secrets/cloud"
raised() { reads 35 && same "$(alarms HighTemperature)" 1; }
check_within 60 "a reading of the serial line becomes an event in the cloud" raised
check "a device on the network is answered" box mosquitto_pub -h 10.9.8.7 -p 1883 -q 1 -t any/thing -m '{"t":1}'

# It is the group that opens the line: without it nothing else would.
sh_box 'mkdir -p /run/systemd/system/tidegate.service.d
printf "[Service]\nSupplementaryGroups=\n" >/run/systemd/system/tidegate.service.d/test.conf; systemctl daemon-reload'
since=$(date +%s)
box systemctl restart tidegate
check_within 30 "without dialout the line stays shut" said 'ermission denied'
box rm -r /run/systemd/system/tidegate.service.d
box systemctl daemon-reload
box systemctl restart tidegate

# --- Reload ---

pid=$(main_pid)
box sed -i 's/above = 30.0/above = 50.0/; s/clear = 28.0/clear = 45.0/' /etc/tidegate/gateway.toml
check "a reload is waited for" box systemctl reload tidegate
check "a reload is no restart" same "$(main_pid)" "$pid"
raised_to() { reads 55 && sh_box "grep -q '\"value\":55' /root/cloud.log"; }
check_within 60 "it has the new rules" raised_to
box cp /etc/tidegate/gateway.toml /root/right.toml
sh_box 'echo "nonsense = 1" >>/etc/tidegate/gateway.toml'
check "a wrong configuration is refused" not box systemctl reload tidegate
check "and the gateway goes on" same "$(main_pid) $(box systemctl is-active tidegate)" "$pid active"

# --- The watchdog ---

box cp /root/right.toml /etc/tidegate/gateway.toml
since=$(date +%s)
count=$(restarts)
sh_box "kill -STOP $pid"
killed() { said 'Watchdog timeout' && [ "$(main_pid)" != "$pid" ] && active; }
check_within 120 "a gateway that hangs is killed and started again" killed
check "once" same "$(restarts)" $((count + 1))
# A pty, unlike a serial port, keeps its exclusive lock when who holds it is killed: pulled and plugged in again.
box systemctl stop boiler
plug_in
check_within 60 "nothing needs a person then" box tidegate status

# --- What is not restarted ---

# Without a last good configuration, a wrong one is not tried twice.
box systemctl stop tidegate
sh_box 'mv /var/lib/tidegate /var/lib/tidegate.kept; echo "nonsense = 1" >>/etc/tidegate/gateway.toml'
count=$(restarts)
check "a wrong configuration does not start" not box systemctl start tidegate
failed() { same "$(box systemctl show -P ActiveState tidegate) $(box systemctl show -P ExecMainStatus tidegate)" 'failed 78'; }
check_within 20 "it is said to be the configuration (78)" failed
# Longer than RestartSec: a restart would have come.
sleep 8
check "and it is not tried again" same "$(restarts) $(box systemctl show -P ActiveState tidegate)" '0 failed'
sh_box 'rm -rf /var/lib/tidegate; mv /var/lib/tidegate.kept /var/lib/tidegate; cp /root/right.toml /etc/tidegate/gateway.toml'
box systemctl start tidegate
check_within 60 "it runs again once it is mended" active

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
    check "the journal goes on" same "$(epoch)" "$before"
    check_within 60 "the uplink and the line come back" box tidegate status
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

check "it is purged" box apt-get purge -qq -y tidegate
check "nothing of its data, its configuration and its unit is left" not sh_box \
    "ls -d /var/lib/tidegate /etc/tidegate /run/tidegate /usr/lib/systemd/system/tidegate* /etc/systemd/system/*/tidegate*"
check "its user is not given to anybody else" box getent passwd tidegate
check "it is installed after a purge" install /root/new.deb
check_within 60 "it is ready after a purge" active
check "as new" not same "$(epoch)" "$before"
check "it is removed and purged in one" box apt-get purge -qq -y tidegate
