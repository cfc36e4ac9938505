# Sourced by test-container.sh, with the gateway running in the container: the unit under its whole sandbox. It leaves a
# gateway with an uplink and a serial line, whose configuration is /root/right.toml.

said() { box journalctl -u tidegate --since "@$since" --no-pager | grep -q -- "$1"; }
reads() { sh_box "printf '{\"t\":$1}\n' >/dev/boiler-end"; }

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
sleep 20
check "and it is not tried again" same "$(restarts) $(box systemctl show -P ActiveState tidegate)" '0 failed'
sh_box 'rm -rf /var/lib/tidegate; mv /var/lib/tidegate.kept /var/lib/tidegate; cp /root/right.toml /etc/tidegate/gateway.toml'
box systemctl start tidegate
check_within 60 "it runs again once it is mended" active
