#!/bin/bash
# The Debian packages, in a Debian 12 that has just been made and nothing else: what they say of themselves, that apt installs them,
# that the daemon serves the client there, and that nothing is left after a purge.
#
#   test_debian.sh SOURCE
#
# STREAMKV_DEBIAN_TREE: a folder with such a Debian, to spare the minutes that making one takes; it is copied.
set -uo pipefail
source=$1
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

skip()
{
	echo "SKIP package_debian: $1"
	exit 77
}
status=0
fault()
{
	echo "FAIL $1"
	status=1
}

[ "$(id -u)" = 0 ] || skip "chroot needs root"
command -v dpkg-deb >/dev/null || skip "this is not a Debian system"
maker=$(command -v mmdebstrap || command -v debootstrap) || skip "neither mmdebstrap nor debootstrap is here"
unshare --mount --pid --fork true 2>/dev/null || skip "namespaces for mounts and processes are not to be had here"

scratch=$(mktemp -d) || exit 1
trap 'rm -rf --one-file-system -- "$scratch"' EXIT
tree=$scratch/debian

# --- The packages themselves ---

mapfile -t packages < <("$source/tools/package" 2>"$scratch/said")
[ ${#packages[@]} = 4 ] || {
	tail -n 30 "$scratch/said"
	echo "FAIL tools/package made ${#packages[@]} packages, not 4"
	exit 1
}
declare -A deb=()
for package in "${packages[@]}"; do
	deb[$(dpkg-deb -f "$package" Package)]=$package
done
depends() # PACKAGE
{
	dpkg-deb -f "${deb[$1]}" Depends
}
holds() # PACKAGE path...
{
	local package=$1 path
	shift
	dpkg-deb --fsys-tarfile "${deb[$package]}" | tar -t | sed 's|^\.||' >"$scratch/paths"
	for path in "$@"; do
		grep -qxE "$path" "$scratch/paths" || fault "$package has no $path"
	done
}
library="/usr/lib/[^/]+"
holds streamkvd /usr/bin/streamkvd /usr/share/man/man8/streamkvd.8.gz /usr/lib/systemd/system/streamkvd.service \
	/usr/lib/systemd/system/streamkvd.socket /usr/share/doc/streamkvd/copyright
holds streamkv-client /usr/bin/streamkv-client /usr/share/man/man1/streamkv-client-generate.1.gz
holds libstreamkv0 "$library/libstreamkv.so.0" "$library/libstreamkv.so.0[.0-9]+"
holds libstreamkv-dev /usr/include/streamkv.h "$library/libstreamkv.so" "$library/pkgconfig/streamkv.pc"

version=$(dpkg-deb -f "${deb[streamkvd]}" Version)
for name in "${!deb[@]}"; do
	for field in Maintainer Description Architecture Section Installed-Size; do
		[ -n "$(dpkg-deb -f "${deb[$name]}" $field)" ] || fault "$name has no $field"
	done
	! grep -q -- -dev <<<"$(depends "$name")" || fault "$name depends on what one builds with: $(depends "$name")"
	mkdir -p "$scratch/$name"
	dpkg-deb -x "${deb[$name]}" "$scratch/$name"
	doc=$scratch/$name/usr/share/doc/$name
	grep -q Copyright "$doc/copyright" || fault "$name does not say whose it is"
	changes=$(zcat "$doc/changelog.Debian.gz")
	[[ $changes == "streamkv ($version) "* && $changes == *" -- $(dpkg-deb -f "${deb[$name]}" Maintainer)  "* ]] ||
		fault "$name is not of the version and the maintainer at the head of its changelog"
	! grep -rlF -- "$source" "$scratch/$name" || fault "$name names the folder that it was built in"
	while read -r program; do
		! readelf -d "$program" 2>/dev/null | grep -E 'RPATH|RUNPATH' || fault "$program looks for libraries elsewhere"
	done < <(find "$scratch/$name" -type f \( -perm /1 -o -name '*.so*' \))
done
for wanted in libc6 libevent-core libprotobuf-c libpcre2-8 libutf8proc libjansson libinih libsystemd0; do
	[[ $(depends streamkvd) == *$wanted* ]] || fault "streamkvd does not depend on $wanted: $(depends streamkvd)"
done
[[ $(depends streamkv-client) == *libjansson* ]] || fault "streamkv-client does not depend on libjansson"
[[ $(depends streamkv-client) != *libevent* ]] || fault "streamkv-client depends on the daemon's libraries"
[[ $(depends libstreamkv-dev) == *"libstreamkv0 (= $version)"* ]] || fault "libstreamkv-dev takes any libstreamkv0: $(depends libstreamkv-dev)"

dpkg-deb --ctrl-tarfile "${deb[libstreamkv0]}" | tar -xO ./shlibs | grep -q '^libstreamkv 0 libstreamkv0 (>= ' ||
	fault "libstreamkv0 does not tell dpkg-shlibdeps what to depend on"

# --- A Debian that has nothing else ---

if [ -n "${STREAMKV_DEBIAN_TREE-}" ]; then
	cp -a -- "$STREAMKV_DEBIAN_TREE" "$tree"
elif [[ $maker == */mmdebstrap ]]; then
	"$maker" --quiet --variant=minbase bookworm "$tree" >"$scratch/said" 2>&1
else
	"$maker" --variant=minbase bookworm "$tree" >"$scratch/said" 2>&1
fi || skip "a Debian 12 could not be made: $(tail -n 1 "$scratch/said")"

mkdir "$tree/test"
cp -- "${packages[@]}" "$here/inside.sh" "$here/booted.sh" "$tree/test/"
cp -- "$source/tests/models/tiny-llama-q8_0.gguf" "$tree/test/model.gguf"
cp -L /etc/resolv.conf "$tree/etc/resolv.conf" 2>/dev/null
# What runs in there ends with its first process, and so do its mounts.
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child bash -c 'mount -t proc proc "$0/proc" && exec chroot "$0" /bin/bash /test/inside.sh' "$tree" ||
	fault "inside the tree: see above"

# --- The same, booted ---

boot()
{
	local said units=$tree/etc/systemd/system
	command -v systemd-nspawn >/dev/null || {
		echo "SKIP package_debian: what needs a running systemd: systemd-nspawn is not here"
		return
	}
	printf '[Unit]\nRequires=package-test.service\n' >"$units/package-test.target"
	printf '[Service]\nType=oneshot\nTimeoutStartSec=600\nExecStart=/bin/sh /test/begin\n' >"$units/package-test.service"
	printf '/test/booted.sh >/test/said 2>&1\nsystemctl --force --force poweroff\n' >"$tree/test/begin"
	said=$(SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 900 systemd-nspawn --quiet --boot --directory "$tree" --register=no --keep-unit \
		--private-network --link-journal=no --resolv-conf=off --console=pipe systemd.unit=package-test.target </dev/null 2>&1)
	if [ -e "$tree/test/said" ]; then
		cat "$tree/test/said"
		[ "$(cat "$tree/test/code")" = 0 ] || fault "in the booted tree: see above"
	else
		echo "SKIP package_debian: what needs a running systemd: nothing boots here: $(tail -n 1 <<<"$said")"
	fi
}
[ $status != 0 ] || boot
[ $status = 0 ] && echo "ok   ${!deb[*]}, version $version"
exit $status
