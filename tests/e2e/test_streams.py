"""Several streams of one connection (streams.c), with a real daemon."""
import os
import subprocess
import unittest

from streamkv_test import BIN, DEADLINE, Case


class Streams(Case):
    def tearDown(self):
        self.assert_idle()

    def test_streams(self):
        done = subprocess.run([os.path.join(BIN, "e2e_streams_client")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=DEADLINE, env=dict(os.environ, STREAMKV_SOCKET=self.daemon.socket))
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
