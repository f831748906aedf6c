#include "control.h"
#include "inside.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unistd.h>

namespace cusim
{

long n_errors;
static std::string last;
static std::set<std::string> since; /* they were forgotten */

void report(const char *kind, const char *format, ...)
{
	static std::set<std::string> told;
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	last = std::string(kind) + ": " + text;
	n_errors++;
	since.insert(last);
	if (told.insert(last.substr(0, last.find(" @@"))).second)
		fprintf(stderr, "cusim: %s\n", last.c_str());
}

uint32_t random_bits()
{
	static uint64_t state;
	if (!state) {
		const char *seed = getenv("CUSIM_SEED");
		state = 88172645463325252u ^ (seed ? strtoull(seed, nullptr, 10) + 1 : 1) * 0x9e3779b97f4a7c15u;
	}
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

std::string where(uintptr_t pc)
{
	static std::map<uintptr_t, std::string> known;
	std::string &place = known[pc];
	if (!place.empty())
		return place;
	char command[128], line[512] = "";
	snprintf(command, sizeof command, "addr2line -s -e /proc/%d/exe 0x%lx 2>/dev/null", getpid(),
		 (unsigned long)pc - 1);
	if (FILE *pipe = popen(command, "r")) {
		if (!fgets(line, sizeof line, pipe))
			line[0] = '\0';
		pclose(pipe);
	}
	line[strcspn(line, " \n")] = '\0';
	return place = line[0] ? line : "?";
}

}

extern "C" {
long cusim_n_errors(void)
{
	return cusim::n_errors;
}

void cusim_forget_errors(void)
{
	cusim::n_errors = 0;
	cusim::last.clear();
	cusim::since.clear();
}

int cusim_saw(const char *text)
{
	for (const std::string &message : cusim::since)
		if (message.find(text) != std::string::npos)
			return 1;
	return 0;
}

const char *cusim_last_error(void)
{
	return cusim::last.c_str();
}
}
