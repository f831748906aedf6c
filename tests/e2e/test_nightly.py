"""What takes minutes: a prompt of 10 MB, read whole; a million tokens in one session. tools/test --nightly runs it, on Release
alone."""
import csv
import json
import os
import unittest

from streamkv_test import Case, skip

LONG = 3600  # seconds


class LongPrompt(Case):
    options = ("--max-prompt", "16M")

    def test_ten_megabytes_are_read_whole(self):
        if os.environ.get("STREAMKV_SANITIZE"):
            skip(self.id(), "it takes hours under a sanitizer")
        line = b"It was the best of times, it was the worst of times; %d went by.\n"
        text = b"".join(line % i for i in range(10 * 2**20 // 60))
        self.assertGreater(len(text), 10 * 10**6)
        count = int(self.daemon.run("tokenize", "--count", stdin=text).stdout)
        _, end = self.daemon.generate("-n", "20", "-W", "60", stdin=text, timeout=LONG)
        self.assertEqual((end["prompt_tokens"], end["evaluated_tokens"]), (count, count))
        self.assertEqual((end["stop"], end["live_max"]), ("limit", 64))
        self.assert_idle()

class Forever(Case):
    options = ("--kv-memory", "64M", "--kv", "f32")  # a key rounded to 16 bits depends on its angle

    def rss_bytes(self):
        with open("/proc/%d/status" % self.daemon.process.pid) as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    def ppl(self, session, text, *arguments):
        path = os.path.join(self.daemon.folder, "text")
        with open(path, "wb") as file:
            file.write(text)
        done = self.daemon.run("ppl", "-f", path, "-S", "4", "-W", "60", "--session", session, "--json", *arguments,
                               timeout=LONG)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return json.loads(done.stdout)

    def scores(self, session, text):
        path = os.path.join(self.daemon.folder, "scores.csv")
        self.ppl(session, text, "--per-token", path)
        with open(path) as file:
            return [float(row["logprob"]) for row in csv.DictReader(file)]

    def test_a_million_tokens_in_constant_memory_and_at_the_same_quality(self):
        if os.environ.get("STREAMKV_SANITIZE"):
            skip(self.id(), "it takes hours under a sanitizer")
        words = [b"king", b"sea", b"night", b"bread", b"river", b"stone", b"voice", b"door"]
        lines = (b"%s and %s of the %s, in year %d\n" % (words[i % 7], words[i * i % 8], words[i % 5], i)
                 for i in range(10**9))
        sinks = b"It was a dark night, and the king had gone to the sea."
        piece = [b"".join(next(lines) for _ in range(4000)) for _ in range(3)]
        self.ppl("forever", sinks)
        n_tokens, rss = 0, []
        while n_tokens < 1000000:
            for text in piece:
                n_tokens += self.ppl("forever", text)["tokens"]
                rss.append(self.rss_bytes())
        rss = rss[2:]  # until every buffer was touched
        self.assertLess(max(rss), 1.01 * min(rss))
        # Behind the same sinks the same text is the same, once nothing older is seen by way of the window.
        self.ppl("new", sinks)
        text = b"".join(next(lines) for _ in range(1500))
        old, new = (self.scores(session, text)[-10000:] for session in ("forever", "new"))
        self.assertEqual(len(old), 10000)
        self.assertLess(max(abs(a - b) for a, b in zip(old, new)), 1e-3)


if __name__ == "__main__":
    unittest.main()
