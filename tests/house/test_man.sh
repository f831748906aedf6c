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

for page in streamkvd.8 streamkvd.conf.5 streamkv-protocol.7 streamkv-client.1 \
	streamkv-client-{generate,sessions,ps,top,ppl,compare,bench,tokenize,detokenize,status,model}.1; do
	file=$1/man/$page
	if [ ! -s "$file" ]; then
		fault "$file is not there"
		continue
	fi
	warnings=$(groff -man -Tutf8 -ww -z "$file" 2>&1)
	[ -z "$warnings" ] || fault "$page: $warnings"
	text=$(groff -man -Tascii -P-c -P-b -P-u "$file" 2>/dev/null)
	sections=(NAME SYNOPSIS DESCRIPTION "EXIT STATUS")
	[ "$page" != streamkvd.conf.5 ] || sections=(NAME SYNOPSIS DESCRIPTION OPTIONS "OPTIONS OF A USER" EXAMPLES "SEE ALSO")
	[ "$page" != streamkv-protocol.7 ] || sections=(NAME DESCRIPTION FRAMES "A WHOLE EXCHANGE, BYTE BY BYTE" LIMITS)
	for section in "${sections[@]}"; do
		grep -qx "$section" <<<"$text" || fault "$page has no section $section"
	done
	grep -qF "${page%.*} - " <<<"$text" || fault "$page: NAME is not \"${page%.*} - summary\""
done

# Pages that are named are there, and the client's names one for each command.
while read -r name section; do
	[ -e "$1/man/$name.$section" ] || fault "a page names $name($section), which is not there"
done < <(sed 's/\\-/-/g' "$1"/man/*.[1-8] | sed -n 's/^\.BR \([a-z.-]*\) (\([1-8]\)),*$/\1 \2/p' | sort -u)
while read -r command _; do
	grep -qF "streamkv\\-client\\-$command (1)" "$1/man/streamkv-client.1" || fault "streamkv-client.1 does not name $command"
done < <("$1/bin/streamkv-client" --help | sed '1,/^commands:/d')

# Every row of the exchange, as it stands in the document.
text=$(groff -man -Tascii -P-c -P-b -P-u "$1/man/streamkv-protocol.7" 2>/dev/null | sed 's/^ *//')
while read -r row; do
	grep -qxF -- "$row" <<<"$text" || fault "streamkv-protocol.7 lacks $row"
done < <(grep -E '^[0-9a-f]{4}  ([0-9a-f]{2} )+ ' "$(dirname -- "$0")/../../doc/PROTOCOL.md")

# Every option that --help shows is in the page.
lacks_none() # PAGE PROGRAM argument...
{
	local page=$1 option
	shift
	while read -r option; do
		grep -qF -- "${option//-/\\-}" "$page" || fault "${page##*/} lacks $option"
	done < <("$@" --help | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+'
		"$@" --help | grep -oE '^  [a-z-]+ = ')
}
lacks_none "$1/man/streamkvd.8" "$1/bin/streamkvd"
lacks_none "$1/man/streamkv-client.1" "$1/bin/streamkv-client"
while read -r command _; do
	lacks_none "$1/man/streamkv-client-$command.1" "$1/bin/streamkv-client" "$command"
done < <("$1/bin/streamkv-client" --help | sed '1,/^commands:/d')
# The file's page and the sample have every option that a file may hold, and none else: the daemon takes each of the sample's lines.
while read -r option; do
	case $option in
	config | check-config | hold-weights | version) taken=1 ;; # not_in_file
	*) taken= ;;
	esac
	for file in streamkvd.conf.5 streamkvd.conf; do
		if [ -z "$taken" ]; then
			grep -qE "^(\.B |# )$option = " <(sed 's/\\-/-/g' "$1/man/$file") || fault "$file lacks $option"
		else
			! grep -qE "^(\.B |# )$option = " <(sed 's/\\-/-/g' "$1/man/$file") || fault "$file has $option, which no file may hold"
		fi
	done
done < <("$1/bin/streamkvd" --help | sed '/^in the configuration file/,$d' | grep -oE '^ +(-., )?--[a-z-]+' |
	sed 's/.*--//' | grep -vx help
	"$1/bin/streamkvd" --help | sed -n 's/^  \([a-z-]*\) = .*/\1/p')
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
sed -E 's/^#([a-z-]+ = |\[)/\1/' "$1/man/streamkvd.conf" >"$scratch/streamkvd.conf"
[ "$(grep -c '^[a-z-]* = ' "$scratch/streamkvd.conf")" -gt 20 ] || fault "the sample names few defaults"
said=$("$1/bin/streamkvd" --check-config --model none --config "$scratch/streamkvd.conf" 2>&1) ||
	fault "the sample, with every default in it, is refused: $said"
exit $status
