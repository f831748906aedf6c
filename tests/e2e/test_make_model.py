"""tools/make-model: a directory and a GGUF file of one shape and seed are the same model, and can be served."""
import os
import subprocess
import tempfile
import unittest

from streamkv_test import Daemon

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "tools", "make-model")


class MakeModel(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="streamkv-e2e-")
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def make(self, name, *arguments):
        subprocess.run([TOOL, *arguments, self.path(name)], check=True)
        return self.path(name)

    def scores(self, model):
        daemon = Daemon("--weights", "f32", "--kv", "f32", model=model)
        try:
            text = self.path("text")
            with open(text, "w") as file:
                file.write("".join(chr(32 + i * 37 % 90) for i in range(300)))
            done = daemon.run("ppl", "-f", text, "-S", "2", "-W", "30", "-q", "--per-token", self.path("rows"))
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path("rows")) as file:
                return file.read()
        finally:
            self.assertEqual(daemon.stop(), 0)

    def test_both_forms_are_one_model(self):
        seen = set()
        for shape in ("tiny-neox", "tiny-llama"):
            for dtype in ("bf16", "f16", "f32"):
                with self.subTest(shape=shape, dtype=dtype):
                    ask = ["--shape", shape, "--dtype", dtype, "--seed", "3"]
                    rows = self.scores(self.make(shape + dtype, *ask))
                    self.assertGreater(rows.count("\n"), 100)
                    self.assertEqual(rows, self.scores(self.make(shape + dtype + ".gguf", *ask)))
                    seen.add(rows)
        self.assertEqual(len(seen), 6)

    def test_another_seed_is_another_model(self):
        one, other = (self.make("m%d.gguf" % seed, "--shape", "tiny-neox", "--seed", str(seed)) for seed in (1, 2))
        self.assertNotEqual(self.scores(one), self.scores(other))

    def test_refusals(self):
        for arguments, code, words in [
            (["--shape", "gpt-5", self.path("x")], 2, "invalid choice"),
            (["--shape", "tiny-neox"], 2, "OUT is missing"),
            (["--shape", "tiny-neox", "/nowhere/x.gguf"], 73, "No such file"),
        ]:
            done = subprocess.run([TOOL, *arguments], capture_output=True, text=True)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
