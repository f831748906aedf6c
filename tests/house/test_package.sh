#!/bin/bash
# What the Debian package's scripts do around an installation, with programs that only note how they are called, in folders that
# this process alone sees. The whole of it, in a Debian, is tests/package, nightly.
set -uo pipefail

cd -- "$1" || exit 1
if [ "${2-}" != inside ]; then
	if ! unshare --user --map-root-user --mount true 2>/dev/null; then
		echo "SKIP house_package: namespaces are not to be had here"
		exit 77
	fi
	exec unshare --user --map-root-user --mount "$0" "$1" inside
fi

status=0
fault()
{
	echo "FAIL $1"
	status=1
}
for folder in /run /etc /var/lib; do
	mount -t tmpfs none "$folder" || exit 1 # before anything below is removed there
done
mkdir -p /run/systemd/system /run/bin
for program in systemctl systemd-sysusers systemd-tmpfiles getent userdel groupdel; do
	# shellcheck disable=SC2016 # the script's own
	printf '#!/bin/sh\necho "${0##*/} $*" >>/run/called\n' >"/run/bin/$program"
	chmod +x "/run/bin/$program"
done
run() # SCRIPT argument...
{
	rm -f /run/called
	PATH=/run/bin:$PATH sh "package/$1" "${@:2}" || fault "$* ends with $?"
}

run postinst configure
! grep -q restart /run/called || fault "the first installation starts something again"
run postinst configure 0.1.0
# The holder first: the daemon wants what only the new one has.
grep -qx 'systemctl try-restart streamkv-weights.service streamkvd.service' /run/called ||
	fault "an upgrade does not restart the holder of weights, then the daemon: $(cat /run/called)"

# A purge takes away what the administrator laid beside any of the units, as well.
for unit in streamkvd.service streamkvd.socket streamkv-weights.service; do
	mkdir -p "/etc/systemd/system/$unit.d"
done
mkdir -p /etc/systemd/system/other.service.d /etc/streamkv/streamkvd.conf.d /var/lib/streamkv
run postrm remove
for folder in /etc/streamkv/streamkvd.conf.d /var/lib/streamkv; do
	[ -d "$folder" ] || fault "a removal takes $folder, which a purge alone may"
done
run postrm purge
said=$(find /etc /var/lib /run/streamkv -name '*streamkv*' 2>/dev/null)
[ -z "$said" ] || fault "after a purge there are $said"
[ -d /etc/systemd/system/other.service.d ] || fault "a purge takes what is another's"
exit $status
