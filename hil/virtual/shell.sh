# On the virtual board only: runs what the tests ask for over a port of the emulator.
#
# A request is a line, "LENGTH COMMAND", and LENGTH bytes that are the command's input; the answer is a line, "CODE OUTPUT".
# COMMAND and OUTPUT are in base64.

exec 3<>/dev/virtio-ports/tidegate.shell || exit 1
while read -r length command <&3; do
    output=$(head -c "$length" <&3 | sh -c "$(printf '%s\n' "$command" | base64 -d)" 2>&1 3>&-)
    code=$?
    echo "$code $(printf '%s\n' "$output" | base64 -w 0)" >&3
done
