#!/bin/bash
# What test_debian.sh runs in a Debian of its own, as root, with the packages, a model and this script in /test.
set -uo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset STREAMKV_SOCKET XDG_RUNTIME_DIR STATE_DIRECTORY

status=0
fault()
{
	echo "FAIL $1"
	status=1
}
apt() # arguments...
{
	apt-get -qq -y -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root --no-install-recommends "$@" >/test/apt 2>&1 || {
		cat /test/apt
		fault "apt-get $* ends with an error"
		return 1
	}
}
# Every file with its kind and owner, but those in which package tools note what they did and did again.
census()
{
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /test -o -path /tmp -o -path /var/log -o -path /var/cache \
		-o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -name ld.so.cache \
		-o -name passwd- -o -name group- -o -name shadow- -o -name gshadow- \) -prune -o -printf '%p %y %u %g\n' | sort
	dpkg-query -W -f '${Package} ${db:Status-Status}\n'
	sort /etc/passwd /etc/group
}

start()
{
	streamkvd 2>/test/log &
	daemon=$!
	for ((tenths = 0; tenths < 300; tenths++)); do
		grep -q ready /test/log && return
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	fault "the daemon does not start: $(cat /test/log)"
}
as_nobody()
{
	setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
}

use() # Installs, starts, generates, removes, purges.
{
	apt install /test/streamkvd_*.deb /test/streamkv-client_*.deb /test/libstreamkv0_*.deb /test/libstreamkv-dev_*.deb || return
	dpkg --audit | grep . && fault "dpkg finds fault"
	for file in /usr/bin/streamkvd /usr/bin/streamkv-client /usr/lib/*/libstreamkv.so.0; do
		! ldd "$file" | grep "not found" || fault "$file lacks a library"
	done
	ldconfig -p | grep -q 'libstreamkv\.so\.0' || fault "the linker does not know libstreamkv.so.0"

	# As the administrator's file has it; the folder is the unit's to make, where there is systemd.
	mkdir -p /run/streamkv /var/lib/streamkv
	cp /usr/share/doc/streamkvd/examples/streamkvd.conf /etc/streamkv/
	printf '%s\n' 'model = /test/model.gguf' 'socket = /run/streamkv/streamkvd.sock' 'socket-mode = 666' \
		'state-dir = /var/lib/streamkv' 'kv-memory = 16M' >>/etc/streamkv/streamkvd.conf
	streamkvd --check-config || fault "--check-config ends with $?"
	start
	said=$(as_nobody streamkv-client generate --session diary -n 12 --ignore-eos "Once upon a time") || fault "generate ends with $?"
	[ -n "$said" ] || fault "generate says nothing"
	again=$(as_nobody streamkv-client generate -n 12 --ignore-eos "Once upon a time")
	[ "$said" = "$again" ] || fault "the same question has another answer: $again"
	as_nobody streamkv-client status | grep -q 'streamkvd 0' || fault "status does not name the daemon"
	kill "$daemon"
	wait "$daemon" || fault "the daemon ends with $?: $(cat /test/log)"
	[ -n "$(find /var/lib/streamkv -type f)" ] || fault "the session was not stored"

	# The same again is an upgrade to the scripts.
	apt install --reinstall /test/streamkvd_*.deb
	apt remove streamkvd
	[ ! -e /usr/bin/streamkvd ] || fault "the program stays after remove"
	[ -n "$(find /var/lib/streamkv -type f)" ] || fault "remove takes the sessions"
	[ -e /etc/streamkv/streamkvd.conf ] || fault "remove takes the configuration"
	apt purge streamkvd streamkv-client libstreamkv0 libstreamkv-dev
	apt autoremove --purge
}

unchanged() # what had been before
{
	census >/test/after
	diff "$1" /test/after >/test/diff || {
		cat /test/diff
		fault "not all is as before (<) after the purge (>)"
	}
}

apt update || exit 1
census >/test/before
use
unchanged /test/before

# With systemd's tools, though it is not running: its user and folders are made, and a service that had been enabled leaves no link.
apt install systemd || exit 1
census >/test/before
apt install /test/streamkvd_*.deb
if [ -e /usr/lib/sysusers.d/streamkv.conf ]; then
	getent passwd streamkv >/dev/null || fault "there is no user streamkv"
fi
systemctl enable streamkvd.socket streamkvd.service >/test/log 2>&1 || fault "it cannot be enabled: $(cat /test/log)"
[ -n "$(find /etc/systemd -name streamkvd.socket)" ] || fault "to enable does nothing"
apt purge streamkvd
apt autoremove --purge
unchanged /test/before

# For booted.sh.
apt install /test/streamkvd_*.deb /test/streamkv-client_*.deb
exit $status
