"""The layer rules hold because breaking them fails: once in tools/check-layers, once in the compiler.

    test_layers.py check TREE            faults planted in a copy of the rooms are found, each at its line
    test_layers.py build TREE BUILD      a file that includes a room above its own does not compile
"""
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

tree = pathlib.Path(sys.argv[2]).resolve()
failed = 0


def report(good, what):
    global failed
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {what}")


def check(copy):
    return subprocess.run([sys.executable, tree / "tools/check-layers", copy], capture_output=True, text=True)


# file, the line planted at its end, what the check must say of it
PLANTED = [
    ("base/diag.c", '#include "engine/engine.h"', "does not know engine/"),
    ("base/diag.h", '# include "kv/window.h"', "does not know kv/"),
    ("kv/pool.c", '#include "model/config.h"', "does not know model/"),
    ("engine/step.c", '#include "cpu/cpu.h"', "does not know cpu/"),
    ("shm/segment.c", '#include "segment.h"', "is not of the form"),
    ("daemon/server.c", '#include "cpu/cpu.h"', "a second file names a device"),
    ("client/text.c", '#include "engine/request.h"', "does not know engine/"),
    ("kv/CMakeLists.txt", "target_link_libraries(sk_kv PUBLIC sk_engine)", "may not know engine/"),
    ("base/CMakeLists.txt", "sk_room(base KNOWS model)", "may not know model/"),
    ("model/config.c", "void f(void) { sk_log(SK_LOG_INFO, \"a\"); }", "logs above debug"),
    ("model/config.c", "void f(void) { sk_log(\n SK_LOG_INFO, \"a\"); }", "logs above debug"),
    ("text/bpe.c", "void f(void) { printf(\"a\"); }", "prints"),
    ("cpu/pool.c", "void f(void) { fprintf(stderr, \"a\"); }", "prints"),
    ("proto/frame.c", "void f(void) { abort(); }", "prints or ends"),
    ("engine/engine.c", "void f(void) { assert(1); }", "prints or ends"),
]
HARMLESS = [
    ("base/diag.c", '/* #include "engine/engine.h" */'),
    ("model/config.c", "void f(void) { sk_log(SK_LOG_DEBUG, \"a\"); }"),
    ("kv/pool.c", "/* abort(); printf(\"a\") */ static const char *s = \"exit(1)\";"),
]


def plant(copy, name, line):
    """Appends the line, runs the check, takes it away again; gives the check's answer and the line's number."""
    path = copy / name
    before = path.read_text()
    path.write_text(before + line + "\n")
    answer = check(copy)
    path.write_text(before)
    return answer, before.count("\n") + 1


def test_check():
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch)
        for makefile in tree.glob("*/CMakeLists.txt"):
            shutil.copytree(makefile.parent, copy / makefile.parent.name,
                            ignore=lambda _, names: [n for n in names if n.endswith((".gguf", ".safetensors"))])
        answer = check(copy)
        report(answer.returncode == 0, f"the tree as it is passes {answer.stdout}".strip())
        for name, line, sentence in PLANTED:
            answer, number = plant(copy, name, line)
            found = any(re.match(rf"{re.escape(name)}:{number}: ", said) and sentence in said
                        for said in answer.stdout.splitlines())
            report(answer.returncode == 1 and found, f"{name}: {line!r} is found at line {number}")
        for name, line in HARMLESS:
            answer, _ = plant(copy, name, line)
            report(answer.returncode == 0, f"{name}: {line!r} passes")
        # The one #if about CUDA may stand; a second may not, wherever it is.
        with open(copy / "daemon/server.c", "a") as one, open(copy / "kv/pool.c", "a") as two:
            one.write("#ifdef SK_CUDA\n#endif\n")
            two.write("#if defined(SK_CUDA)\n#endif\n")
        answer = check(copy)
        report(answer.returncode == 1 and "a second #if about CUDA" in answer.stdout, "a second #if about CUDA is found")


def test_build():
    """Compiles, with each room's own flags, one line that includes a header of each other room."""
    build = pathlib.Path(sys.argv[3]).resolve()
    roots = {}  # room -> its compiler's command, without source and output
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        if (source.parent.parent == tree and source.parent.name not in roots and
                "sk_room(" in (source.parent / "CMakeLists.txt").read_text()):  # a room, not bench/
            words = shlex.split(entry["command"])
            keep = [w for w in words if w != str(source) and w not in ("-c",)]
            at = keep.index("-o")
            roots[source.parent.name] = (keep[:at] + keep[at + 2:], entry["directory"])
    headers = {p.parent.name: p.relative_to(tree) for p in sorted(tree.glob("*/*.h")) if p.parent.name in roots}

    known = {}
    for room in roots:
        text = (tree / room / "CMakeLists.txt").read_text()
        found = re.search(r"sk_room\([^)]*KNOWS([a-z\s]*)", text)
        known[room] = set(found.group(1).split()) if found else set()
    for room in roots:  # libraries bring along what they are linked to
        more = set(known[room])
        while more:
            more = set().union(*(known.get(r, set()) for r in more)) - known[room]
            known[room] |= more

    for room, (command, directory) in sorted(roots.items()):
        for other, header in sorted(headers.items()):
            line = f'#include "{header}"\n'
            answer = subprocess.run(command + ["-fsyntax-only", "-x", "c", "-"], input=line, text=True,
                                    capture_output=True, cwd=directory)
            missing = f"{header}: No such file" in answer.stderr or f"'{header}' file not found" in answer.stderr
            if other == room or other in known[room]:
                report(answer.returncode == 0, f"{room}/ may include {header}" +
                       (f"\n{answer.stderr}" if answer.returncode else ""))
            else:
                report(answer.returncode != 0 and missing, f"{room}/ cannot include {header}")
    report(len(roots) > 5, f"{len(roots)} rooms were tried")


{"check": test_check, "build": test_build}[sys.argv[1]]()
sys.exit(1 if failed else 0)
