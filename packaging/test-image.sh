#!/usr/bin/env bash
# Makes the image of the arm64 package and goes the way of an installer with it, on an emulated board: a configuration
# with a mistake on the card, the report, the mended one, an event at the broker; then a power cut and an upgrade, and
# what must not happen again.
#
#   packaging/test-image.sh [PACKAGE]      without a package: the newest of target/debian
#
# The power is cut by killing the emulator. Needs root to make the image; every port is one of this machine's loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/prepare.sh
. packaging/checks.sh
. packaging/image/tools.sh

package=${1-$(ls -t target/debian/tidegate_*_arm64.deb 2>/dev/null | head -n 1)}
[ -e "$package" ] || die "please make the package first: packaging/build.sh and packaging/deb.sh aarch64-unknown-linux-gnu"
packaging/image/build.sh "$package"
image=$images/tidegate-arm64.img
need_emulator
need mcopy mtools
need ssh openssh-client
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need debugfs e2fsprogs
need fdtput device-tree-compiler
need_python
install_missing
PATH="$PATH:/usr/sbin"

there=$(mktemp -d)
board=""
others=()
power_off() {
    [ -z "$board" ] || { kill -KILL "$board" 2>/dev/null && wait "$board" 2>/dev/null; } || true
    board=""
}
finish() {
    power_off
    if mountpoint -q "$there/root"; then umount "$there/root"; fi
    [ ${#others[@]} -eq 0 ] || kill "${others[@]}" 2>/dev/null || true
    rm -rf "$there"
}
trap finish EXIT

explain() {
    say "--- the board's console:"
    tail -n 25 "$there/console"
    say "--- the report:"
    report
}
not() { ! "$@"; }

# The card: twice as large as the image at least. Its boot partition begins at 4 MiB.
card=$there/card.img
cp --sparse=always "$image" "$card"
truncate -s 4G "$card"
put() { mcopy -o -i "$card@@4M" "$1" "::$2"; }
report() { mcopy -n -i "$card@@4M" ::tidegate-report.txt -; }
report_says() { report | grep -F -- "$1"; }

root_begins=$(sfdisk --json "$image" | python3 -c 'import json, sys; print(json.load(sys.stdin)["partitiontable"]["partitions"][1]["start"] * 512)')
in_image() { debugfs -R "stat $1" "$image?offset=$root_begins" 2>/dev/null; }
empty_in_image() { in_image "$1" | grep -E 'Size: 0( |$)'; }
check "the machine id is none, so that no two cards have the same" empty_in_image /etc/machine-id
no_host_keys() {
    debugfs -R 'ls -p /etc/ssh' "$image?offset=$root_begins" >"$there/names" 2>/dev/null
    grep sshd_config "$there/names" && not grep ssh_host "$there/names"
}
check "nor are there host keys" no_host_keys

# Free ports, all found before one is taken.
read -r broker_port door_port ssh_port <<<"$(python3 -c '
import socket
sockets = [socket.socket() for _ in range(3)]
for each in sockets: each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))')"
printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$broker_port" >"$there/broker.conf"
mosquitto -c "$there/broker.conf" >"$there/broker.log" 2>&1 &
others+=($!)
listens() { mosquitto_pub -p "$1" -t probe -m probe; }
check_within 10 "the broker runs" listens "$broker_port"
mosquitto_sub -p "$broker_port" -t 'tidegate/#' -v >"$there/events" 2>"$there/sub.log" &
others+=($!)

# kernel and initramfs are the image's own; a Raspberry Pi's bootloader takes the same two from the boot partition.
emulator=(qemu-system-aarch64 -cpu cortex-a72 -smp 2 -m 512 -nodefaults -display none)
machine=(-M virt)
power_on() {
    "${emulator[@]}" "${machine[@]}" \
        -kernel "$(dirname "$image")/vmlinuz" -initrd "$(dirname "$image")/initrd.img" \
        -append "console=ttyAMA0 root=LABEL=tidegate-root panic=10 systemd.journald.forward_to_console=1" \
        -drive "file=$card,format=raw,if=none,id=card" -device virtio-blk-pci,drive=card \
        -netdev "user,id=wire,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$door_port-:1883" \
        -device virtio-net-pci,netdev=wire,romfile= -serial "file:$there/console" >"$there/qemu.log" 2>&1 </dev/null &
    board=$!
}
ssh-keygen -q -t ed25519 -N '' -f "$there/key"
options=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5 -p "$ssh_port")
on_board() { ssh -o BatchMode=yes -i "$there/key" "${options[@]}" root@127.0.0.1 "$@"; }

# --- What the installer puts on the card, with a mistake ---

# The one of the ten steps, with another broker and a password.
awk '/^ *```toml/ { on = !found; found = 1; next } /^ *```/ { on = 0 } on { sub(/^   /, ""); print }' docs/installing.md |
    sed "s|192.0.2.10:1883|10.0.2.2:$broker_port|" >"$there/gateway.toml"
printf 'username = "gateway"\npassword-file = "/etc/tidegate/cloud.password"\n' >>"$there/gateway.toml"
sed 's/^above = 30.0/abov = 30.0/' "$there/gateway.toml" >"$there/broken.toml"
echo secret >"$there/cloud.password"
mmd -i "$card@@4M" ::tidegate
put "$there/key.pub" tidegate/authorized_keys
put "$there/cloud.password" tidegate/cloud.password
put "$there/broken.toml" gateway.toml
power_on
check_within 300 "a broken configuration is refused, in a report on the card" report_says "first boot: REFUSED"
check "it names the line and what would be right" report_says 'gateway.toml:13: rule "HighTemperature": [[rule]] has no key `abov`; did you mean `above`?'
check "and what to do" report_says 'What to do next'
check_within 120 "the gateway starts without it" grep -q 'Started.*tidegate.service' "$there/console"
check_within 180 "the installer's key opens the board all the same" on_board true
host_key() { ssh-keyscan -t ed25519 -p "$ssh_port" 127.0.0.1 2>>"$there/keyscan.log" | cut -d ' ' -f 3; }
host_key=$(host_key)
check "it shows a host key" test -n "$host_key"
# Without a sync: what must outlive it is on the card already.
power_off

# --- Mended ---

put "$there/gateway.toml" gateway.toml
power_on
check_within 300 "the mended one is installed" report_says "first boot: INSTALLED"
id=$(report | sed -n 's/^Gateway id: \(tg-[0-9a-f]*\).*/\1/p')
check "the gateway has an id, of this machine's number" test -n "$id"
check_within 180 "the installer's key opens the board" on_board true
check "and it is known by its host key of before the power was cut" same "$(host_key)" "$host_key"
check_within 120 "everything on it has started" on_board 'systemctl is-system-running --wait'
reads() { mosquitto_pub -p "$door_port" -q 1 -i sensor -t sensors/boiler -m "{\"t\": $1}"; }
check_within 60 "a sensor's reading is taken" reads 35
arrived() { grep "$id.*HighTemperature" "$there/events"; }
check_within 60 "its event arrives at the broker" arrived
check "status says that all is well" on_board tidegate status
check "the root filesystem is as large as the card" on_board '[ $(df --output=size -B1M / | tail -n 1) -gt 3200 ]'
check "nothing but the door and ssh can be reached" on_board \
    "ss -Hltn | awk '{ print \$4 }' | grep -vE '^(127\.|\[::1\])' | sort -u | grep -vE ':(1883|22)\$' && exit 1 || true"
check "nobody comes in without a key" not ssh -o BatchMode=no -o NumberOfPasswordPrompts=0 -o PubkeyAuthentication=no "${options[@]}" root@127.0.0.1 true
check "the files are the gateway's to read and nobody else's" on_board \
    '[ "$(stat -c "%U:%G %a" /etc/tidegate/gateway.toml /etc/tidegate/cloud.password | sort -u)" = "root:tidegate 640" ]'
check "the card is read without writing to it" on_board 'findmnt -no OPTIONS / | grep -q noatime && findmnt -no OPTIONS /boot/firmware | grep -q noatime'
check "and what ext4 notes for itself is written every ten minutes" on_board 'findmnt -no OPTIONS / | grep lazytime | grep -qw commit=600'
check "the log is in memory" on_board 'ls /run/log/journal/*/*.journal && ! ls /var/log/journal/*/*.journal 2>/dev/null'

# Idle, after some seconds of it; under emulation, on a machine that does other things, too.
memory=$(on_board 'awk "/^VmRSS/ { print \$2 }" /proc/$(systemctl show -P MainPID tidegate)/status')
check "its memory is 10 MB at most: $memory kB" test "$memory" -le 10240
start() {
    on_board systemctl restart tidegate &&
        took=$(on_board 'systemctl show tidegate -p ActiveEnterTimestampMonotonic -p ExecMainStartTimestampMonotonic' |
            sort | cut -d = -f 2 | paste -sd ' ' | awk '{ print int(($1 - $2) / 1000) }')
}
start
say "        from start to READY: $took ms"
on_board 'echo "# edited on the gateway" >>/etc/tidegate/gateway.toml'
machine_id=$(on_board cat /etc/machine-id)
said=$(report)
on_board sync
power_off

# --- After a power cut, and after an upgrade: as it was left ---

power_on
check_within 300 "after a power cut it starts again" on_board true
check_within 120 "with everything" on_board 'systemctl is-system-running --wait'
check "the machine is the same" same "$(on_board cat /etc/machine-id)" "$machine_id"
edited() { on_board 'tail -n 1 /etc/tidegate/gateway.toml | grep -q edited'; }
check "unchanged files are not installed again" edited
check "the report is the old one" same "$(report)" "$said"
# A later version of the package, with another conffile: nobody is there to be asked about it.
hil/later-package.sh "$package" "$there/next.deb"
upgrade() { on_board 'cat >/tmp/next.deb && dpkg --install /tmp/next.deb' <"$there/next.deb"; }
check "an upgrade installs" upgrade
check_within 120 "the gateway runs on" on_board tidegate status
check "the configuration stays as it was edited" edited
on_board 'sync; systemctl poweroff' || true
gone() { not kill -0 "$board" 2>/dev/null; }
check_within 120 "it can be switched off" gone
power_on
check_within 300 "it starts with the later version" on_board tidegate status
check "which takes nothing from the card that was taken" same "$(report)" "$said"
check "nor changes what was edited" edited
power_off

# --- An image of somebody else's, laid out like Raspberry Pi OS: ours without the package stands in for it ---

other=$there/other.img
cp --sparse=always "$image" "$other"
mkdir "$there/root"
mount -o "loop,offset=$root_begins" "$other" "$there/root"
chroot "$there/root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg --purge tidegate >"$there/purged" 2>&1 || die "$(cat "$there/purged")"
echo uninitialized >"$there/root/etc/machine-id"
umount "$there/root"
packaging/image/build.sh "$package" --base "$other"
mv $images/other-tidegate.img "$there/"
in_other() { debugfs -R "$1" "$there/other-tidegate.img?offset=$root_begins" 2>/dev/null; }
check "and keeps its own way to a machine id" same "$(in_other 'cat /etc/machine-id')" uninitialized
card=$there/other-tidegate.img
put "$there/gateway.toml" gateway.toml
mmd -i "$card@@4M" ::tidegate
put "$there/cloud.password" tidegate/cloud.password
# A board with a number of its own, as a Raspberry Pi has one; so far there was none.
"${emulator[@]}" -M "virt,dumpdtb=$there/board.dtb" 2>"$there/qemu.log" || die "$(cat "$there/qemu.log")"
fdtput -t s "$there/board.dtb" / serial-number 10000000abcd1234
machine=(-M virt -dtb "$there/board.dtb")
power_on
check_within 300 "it takes what lies on its boot partition" report_says "first boot: INSTALLED"
check "the id is of the board's own number" report_says "Gateway id: tg-abcd1234"
check_within 180 "and the gateway starts with it" grep -F tg-abcd1234 "$there/events"
