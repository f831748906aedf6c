#!/bin/bash
# What test_debian.sh runs in the same Debian once it is booted: streamkvd and streamkv-client are installed, systemd is the first
# process, and there is no network. Leaves its exit code in /test/code.
set -uo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin

status=0
fault()
{
	echo "FAIL booted: $1"
	status=1
}
apt() # arguments...
{
	apt-get -qq -y -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root --no-install-recommends "$@" >/test/apt 2>&1 ||
		fault "apt-get $* ends with an error: $(cat /test/apt)"
}
generate()
{
	timeout 120 setpriv --reuid=65534 --regid=65534 --clear-groups -- streamkv-client generate -n 12 --ignore-eos "$@"
}

cp /usr/share/doc/streamkvd/examples/streamkvd.conf /etc/streamkv/
printf '%s\n' 'model = /test/model.gguf' 'kv-memory = 16M' >>/etc/streamkv/streamkvd.conf
! systemctl is-active --quiet streamkvd.service streamkvd.socket || fault "it runs before anybody enabled it"
systemctl --quiet enable --now streamkvd.socket || fault "the socket cannot be enabled"
said=$(generate --session diary "Once upon a time") || fault "generate ends with $?: $(journalctl -u streamkvd.service -o cat)"
[ -n "$said" ] || fault "generate says nothing"
pid=$(systemctl show -P MainPID streamkvd.service)
[ "$pid" -gt 0 ] || fault "the client did not start the service"

# An upgrade starts it again, with its sessions.
apt install --reinstall /test/streamkvd_*.deb
again=$(systemctl show -P MainPID streamkvd.service)
if [ "$again" = "$pid" ] || [ "$again" = 0 ]; then
	fault "an upgrade does not start it again: process $pid, then $again"
fi
setpriv --reuid=65534 --regid=65534 --clear-groups -- streamkv-client sessions | grep -q diary || fault "an upgrade loses the session"

apt purge streamkvd streamkv-client
! grep -lx streamkvd /proc/[0-9]*/comm || fault "it runs after it was purged"
systemctl daemon-reload
said=$(systemctl list-units --all --no-legend 'streamkv*')
[ -z "$said" ] || fault "units stay: $said"
said=$(find / \( -path /proc -o -path /sys -o -path /test -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/apt \) -prune \
	-o -name '*streamkv*' -print)
[ -z "$said" ] || fault "files stay: $said"
! grep streamkv /etc/passwd /etc/group || fault "its user stays"
echo $status >/test/code
