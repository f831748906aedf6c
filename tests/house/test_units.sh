#!/bin/bash
# systemd finds nothing wrong with the units. The program they name is not installed: another stands in.
set -uo pipefail

if ! command -v systemd-analyze >/dev/null; then
	echo "SKIP house_units: systemd-analyze is not here"
	exit 77
fi
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
sed "s|^ExecStart=$2/streamkvd|ExecStart=/bin/true|" "$1/systemd/streamkvd.service" >"$scratch/streamkvd.service"
grep -qx 'ExecStart=/bin/true' "$scratch/streamkvd.service" || {
	echo "FAIL the unit does not run $2/streamkvd"
	exit 1
}
cp -- "$(dirname -- "$0")/../../systemd/streamkvd.socket" "$scratch/"
said=$(SYSTEMD_UNIT_PATH=$scratch: systemd-analyze verify --man=no "$scratch/streamkvd.service" "$scratch/streamkvd.socket" 2>&1)
status=$?
echo "$said"
! grep -q streamkvd <<<"$said" || status=1
exit $status
