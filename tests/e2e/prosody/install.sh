#!/bin/sh
# Installs Debian's prosody without starting its service. Does nothing when it is there already.
set -eu

command -v prosody >/dev/null 2>&1 && exit 0

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# invoke-rc.d and deb-systemd-invoke ask this file before they start a service; 101 means "not allowed". One that is there
# already (container images ship it) is another's and stays as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

as_root apt-get -q update
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install prosody
# The package enables its service for the next boot; the tests start instances of their own.
if command -v systemctl >/dev/null 2>&1; then
    as_root systemctl disable prosody >/dev/null 2>&1 || true
fi
command -v prosody >/dev/null
