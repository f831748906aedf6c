# The man page of a document in Markdown, as far as doc/PROTOCOL.md uses it: headings, paragraphs, lists, tables, verbatim text.
#
#     awk -v page=streamkv-protocol -v section=7 -f man.awk PROTOCOL.md

function escaped(text) {
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	return text
}

# A line of text: what stands in backquotes or between two asterisks is bold, and a dot at its beginning is no request.
function inline(text) {
	text = escaped(text)
	while (match(text, /`[^`]*`/))
		text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fR" substr(text, RSTART + RLENGTH)
	while (match(text, /\*\*[^*]*\*\*/))
		text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 2, RLENGTH - 4) "\\fR" substr(text, RSTART + RLENGTH)
	return text ~ /^[.']/ ? "\\&" text : text
}

# A row: the first column, and beneath it what the others say, each behind what the table's head calls it where there are several.
function row(text, cells, n, i, said) {
	sub(/^\| */, "", text)
	sub(/ *\|$/, "", text)
	n = split(text, cells, / *\| */)
	fresh = 0
	if (!in_table) {
		for (i = 1; i <= n; i++)
			head[i] = cells[i]
		in_table = 1
		return
	}
	if (text ~ /^-+\|?/ && text !~ /[A-Za-z]/)
		return
	print ".TP\n" inline(cells[1] == "" ? "\\&" : cells[1])
	said = ""
	for (i = 2; i <= n; i++) {
		if (cells[i] == "")
			continue
		said = said (said == "" ? "" : "; ") (n > 2 && head[i] != "" ? head[i] ": " : "") cells[i]
	}
	print said == "" ? "\\&" : inline(said)
}

/^```/ {
	print verbatim ? ".fi" : ".PP\n.nf"
	verbatim = !verbatim
	next
}
verbatim {
	line = escaped($0)
	print line ~ /^[.']/ ? "\\&" line : line
	next
}
/^\|/ {
	row($0)
	next
}
{ in_table = 0 }
/^# / {
	title = substr($0, 3)
	printf ".TH %s %s \"\" streamkv\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n", page, section, escaped(page),
		escaped(tolower(substr(title, 1, 1)) substr(title, 2))
	next
}
/^## / {
	print ".SH " toupper(inline(substr($0, 4)))
	fresh = 1
	next
}
/^- / {
	print ".IP \\(bu 2\n" inline(substr($0, 3))
	next
}
/^[0-9]+\. / {
	print ".IP " $1 " 4\n" inline(substr($0, length($1) + 2))
	next
}
/^ *$/ {
	pending = 1
	next
}
{
	if (pending && !fresh)
		print ".PP"
	pending = fresh = 0
	sub(/^ +/, "")
	print inline($0)
}
