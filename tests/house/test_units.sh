#!/bin/bash
# systemd finds nothing wrong with the units, their sandbox is as tight as we say, and what they run as can be made. The
# program they name is not installed: another stands in.
set -uo pipefail

build=$1
bin=$2
source=$(cd -- "$(dirname -- "$0")/../../systemd" && pwd)
if ! command -v systemd-analyze >/dev/null; then
	echo "SKIP house_units: systemd-analyze is not here"
	exit 77
fi
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
status=0
fault()
{
	echo "FAIL $1"
	status=1
}

mkdir "$scratch/system" "$scratch/user"
help=$("$build/bin/streamkvd" --help)
for unit in streamkvd.service streamkv-weights.service user/streamkvd.service user/streamkv-weights.service; do
	case $unit in
	user/*) to=$scratch/$unit ;;
	*) to=$scratch/system/$unit ;;
	esac
	sed "s|^ExecStart=$bin/streamkvd|ExecStart=/bin/true|" "$build/systemd/$unit" >"$to"
	grep -q '^ExecStart=/bin/true' "$to" || fault "$unit does not run $bin/streamkvd"
	# Options that are no longer there would end it at every start.
	arguments=$(sed -n 's/^ExecStart=[^ ]* *//p' "$to" | sed 's/%[tE]/\/tmp/g')
	while read -r option; do
		grep -qE -- "$option( |$)" <<<"$help" || fault "$unit: there is no option $option"
	done < <(grep -oE -- '--[a-z-]+' <<<"$arguments")
done
cp -- "$source/streamkvd.socket" "$scratch/system/"
cp -- "$source/user/streamkvd.socket" "$scratch/user/"

# What the manager here has of its own is none of ours.
check() # MANAGER FOLDER UNITS...
{
	local manager=$1 folder=$2 said
	shift 2
	said=$(cd -- "$folder" && XDG_RUNTIME_DIR=$scratch SYSTEMD_UNIT_PATH=$folder: systemd-analyze "$manager" verify --man=no "$@" 2>&1)
	local result=$?
	[ "$result" = 0 ] || fault "$manager $*: systemd-analyze verify says $result: $said"
	! grep -q streamkv <<<"$said" || fault "$manager: $said"
}
check --system "$scratch/system" streamkvd.service streamkvd.socket streamkv-weights.service
check --user "$scratch/user" streamkvd.service streamkvd.socket streamkv-weights.service

# 2.0 or better, of 10.
for unit in streamkvd streamkv-weights; do
	said=$(systemd-analyze security --offline=true --threshold=20 --no-pager "$scratch/system/$unit.service" 2>&1)
	result=$?
	grep 'Overall exposure' <<<"$said"
	[ "$result" = 0 ] || fault "$unit.service is more exposed than 2.0"
done
# Who a client is, is what SO_PEERCRED says; in a namespace of users it would be nobody.
! grep -qx 'PrivateUsers=yes' "$scratch"/*/*.service || fault "PrivateUsers= hides who the clients are"

# With what CUDA needs it is still a unit.
mkdir "$scratch/system/streamkvd.service.d"
cp -- "$source/gpu.conf" "$scratch/system/streamkvd.service.d/"
check --system "$scratch/system" streamkvd.service

if command -v systemd-sysusers >/dev/null && command -v systemd-tmpfiles >/dev/null && [ "$(id -u)" = 0 ]; then
	mkdir -p "$scratch/root/etc"
	systemd-sysusers --root="$scratch/root" "$source/sysusers.conf" >/dev/null || fault "sysusers.d"
	uid=$(sed -n 's/^streamkv:[^:]*:\([0-9]*\):.*/\1/p' "$scratch/root/etc/passwd")
	systemd-tmpfiles --root="$scratch/root" --create "$source/tmpfiles.conf" >/dev/null || fault "tmpfiles.d"
	for wanted in "run/streamkv 755 $uid" "var/lib/streamkv 700 $uid" "etc/streamkv/streamkvd.conf.d 755 0"; do
		read -r folder mode owner <<<"$wanted"
		[ "$(stat -c '%a %u' "$scratch/root/$folder")" = "$mode $owner" ] || fault "tmpfiles.d: /$folder"
	done
else
	echo "SKIP house_units, users and folders: it takes root, systemd-sysusers and systemd-tmpfiles"
fi
exit $status
