#!/usr/bin/env bash
# Makes the same package with a higher version and another conffile, for the scenario of the upgrade: the board's
# gateway.toml was changed, too, by the first boot.
#
#   hil/later-package.sh PACKAGE.deb LATER.deb
set -euo pipefail

there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
dpkg-deb -R "$1" "$there/package"
sed -i 's/^Version: .*/&+later/' "$there/package/DEBIAN/control"
echo '# New in this version.' >>"$there/package/etc/tidegate/gateway.toml"
dpkg-deb --root-owner-group -b "$there/package" "$there/later.deb" >/dev/null
mv "$there/later.deb" "$2"
