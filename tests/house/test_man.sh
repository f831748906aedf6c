#!/bin/bash
# The man pages are there, troff warns of nothing, and each has its sections and its options.
set -uo pipefail

if ! command -v groff >/dev/null; then
	echo "SKIP house_man: groff is not here"
	exit 77
fi
status=0
fault()
{
	echo "FAIL $1"
	status=1
}

for page in streamkvd.8 streamkv-client.1 streamkv-client-{generate,sessions,ps,top,ppl,compare,tokenize,detokenize,status,model}.1; do
	file=$1/man/$page
	if [ ! -s "$file" ]; then
		fault "$file is not there"
		continue
	fi
	warnings=$(groff -man -Tutf8 -ww -z "$file" 2>&1)
	[ -z "$warnings" ] || fault "$page: $warnings"
	text=$(groff -man -Tascii -P-c -P-b -P-u "$file" 2>/dev/null)
	for section in NAME SYNOPSIS DESCRIPTION "EXIT STATUS"; do
		grep -qx "$section" <<<"$text" || fault "$page has no section $section"
	done
	grep -qF "${page%.*} - " <<<"$text" || fault "$page: NAME is not \"${page%.*} - summary\""
done

# Every option that --help shows is in the page.
while read -r option; do
	grep -qF -- "${option//-/\\-}" "$1/man/streamkvd.8" || fault "streamkvd.8 lacks $option"
done < <("$1/bin/streamkvd" --help | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | grep -v -- --help
	"$1/bin/streamkvd" --help | grep -oE '^  [a-z-]+ = ')
exit $status
