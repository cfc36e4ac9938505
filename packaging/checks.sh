# Sourced by test-container.sh and test-image.sh: promises, a line each. Whoever sources it has a directory $there, and a
# function `explain` that shows what helps when one does not hold.

# within SECONDS COMMAND...: waits until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >"$there/last" 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

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
    explain || true
    exit 1
}

same() { [ "$1" = "$2" ] || { echo "$1, not $2" && return 1; }; }
