"""What takes minutes: a prompt of 10 MB, read whole. tools/test --nightly runs it, on Release alone."""
import os
import unittest

from streamkv_test import Case

LONG = 3600  # seconds


class LongPrompt(Case):
    options = ("--max-prompt", "16M")

    def test_ten_megabytes_are_read_whole(self):
        if os.environ.get("STREAMKV_SANITIZE"):
            self.skipTest("it takes hours under a sanitizer")
        line = b"It was the best of times, it was the worst of times; %d went by.\n"
        text = b"".join(line % i for i in range(10 * 2**20 // 60))
        self.assertGreater(len(text), 10 * 10**6)
        count = int(self.daemon.run("tokenize", "--count", stdin=text).stdout)
        _, end = self.daemon.generate("-n", "20", "-W", "60", stdin=text, timeout=LONG)
        self.assertEqual((end["prompt_tokens"], end["evaluated_tokens"]), (count, count))
        self.assertEqual((end["stop"], end["live_max"]), ("limit", 64))
        self.assert_idle()


if __name__ == "__main__":
    unittest.main()
