/* What the program's own symbols say: which kernel a static shared array belongs to and how long it is, and how many threads
 * a kernel was compiled for. <cusim.h> writes __launch_bounds__(n) as n bytes of nothing before the kernel, whose beginning
 * the compiler lists. A program without symbols is checked for neither.
 */
#include "inside.h"

#include <algorithm>
#include <elf.h>
#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" __attribute__((weak, visibility("hidden"))) const char *const __start___patchable_function_entries[],
	*const __stop___patchable_function_entries[];

namespace cusim
{

struct Object {
	size_t from, to; /* in the program's thread-local storage */
	std::string name;
	const void *owner; /* the function that has it */
};

static std::vector<Object> objects = {{}}; /* the first is nobody's */
static std::vector<uint16_t> object_of;    /* a byte of that storage */
static std::map<const void *, unsigned> bounds; /* of kernels that have them */

/* "_ZZ3fewILi1EEviE6shared" lies in "_Z3fewILi1EEvi". */
static const void *owner_of(const std::string &name, const std::map<std::string, const void *> &functions)
{
	if (name.compare(0, 3, "_ZZ") != 0)
		return nullptr;
	for (size_t at = name.rfind('E'); at != std::string::npos && at > 3; at = name.rfind('E', at - 1)) {
		auto found = functions.find("_Z" + name.substr(3, at - 3));
		if (found != functions.end())
			return found->second;
	}
	return nullptr;
}

static void look_at(const char *image, uintptr_t program_from, size_t n_shared)
{
	const auto *header = (const Elf64_Ehdr *)image;
	const auto *sections = (const Elf64_Shdr *)(image + header->e_shoff);
	std::map<std::string, const void *> functions;
	std::vector<Object> variables;
	for (int i = 0; i < header->e_shnum; i++) {
		if (sections[i].sh_type != SHT_SYMTAB)
			continue;
		const char *names = image + sections[sections[i].sh_link].sh_offset;
		const auto *symbols = (const Elf64_Sym *)(image + sections[i].sh_offset);
		for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++) {
			const Elf64_Sym &s = symbols[k];
			const int type = ELF64_ST_TYPE(s.st_info);
			if (s.st_shndx == SHN_UNDEF)
				continue;
			if (type == STT_FUNC)
				functions[names + s.st_name] = (const void *)(program_from + s.st_value);
			else if (type == STT_TLS)
				variables.push_back({s.st_value, s.st_value + s.st_size, names + s.st_name, nullptr});
		}
	}
	std::set<const void *> begins;
	for (auto &[name, function] : functions)
		begins.insert(function);
	for (auto *at = __start___patchable_function_entries; at < __stop___patchable_function_entries; at++) {
		auto kernel = begins.lower_bound(*at);
		if (kernel != begins.end())
			bounds[*kernel] = (unsigned)((const char *)*kernel - *at);
	}
	if (variables.empty())
		return;
	object_of.assign(n_shared, 0);
	for (Object object : variables) {
		object.owner = owner_of(object.name, functions);
		object.to = std::min(object.to, n_shared);
		std::fill(object_of.begin() + object.from, object_of.begin() + object.to, (uint16_t)objects.size());
		objects.push_back(object);
	}
}

void look_at_symbols(uintptr_t program_from, size_t n_shared)
{
	const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) != 0)
		return;
	void *image = mmap(nullptr, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (image == MAP_FAILED)
		return;
	look_at((const char *)image, program_from, n_shared);
	munmap(image, (size_t)status.st_size);
}

unsigned most_threads_of(const void *function)
{
	auto found = bounds.find(function);
	return found == bounds.end() ? 0 : found->second;
}

size_t static_shared_of(const void *function)
{
	size_t n = 0;
	for (const Object &object : objects)
		if (object.owner && object.owner == function)
			n += object.to - object.from;
	return n;
}

bool is_in_shared(size_t at, unsigned n, const void *function)
{
	if (object_of.empty())
		return true;
	const uint16_t i = object_of[at];
	const Object &object = objects[i];
	return i && at + n <= object.to && (!object.owner || object.owner == function || !bounds.count(object.owner));
}

}
