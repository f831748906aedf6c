"""Bytes that no client of ours would send: the daemon answers with a sentence or hangs up, and serves the next client."""
import mmap
import os
import socket
import struct
import unittest

from streamkv_test import DEADLINE, Case
from wire import HELLO, field, frame, read_frame


def generate(request, prompt, n_tokens):
    return frame(field(1, request) + field(3, field(1, prompt) + field(4, n_tokens)))


class Hostile(Case):
    options = ("--hello-timeout", "0.5", "--ring-slots", "256")

    def tearDown(self):
        self.assert_idle()
        self.assertEqual(self.daemon.run("generate", "-n", "3", "x").returncode, 0)

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(self.daemon.socket)
        return client

    def greet(self, client):
        client.sendall(HELLO)
        message, descriptors = read_frame(client)
        self.assertIn(b"pythia-books", message)
        self.assertEqual(len(descriptors), 4)
        return descriptors

    def close_all(self, descriptors):
        for descriptor in descriptors:
            os.close(descriptor)

    def read_until_finished(self, client):
        while True:
            message, _ = read_frame(client)
            self.assertNotEqual(message, b"")
            if message[2:3] == bytes([4 << 3 | 2]):  # field 4 of ServerMessage, after the request number
                return

    def test_every_split(self):
        whole = HELLO + generate(1, b"It was", 2)
        for at in range(1, len(whole)):
            with self.connect() as client:
                client.sendall(whole[:at])
                client.sendall(whole[at:])
                _, descriptors = read_frame(client)
                self.read_until_finished(client)
                self.close_all(descriptors)

    def test_byte_by_byte(self):
        with self.connect() as client:
            for byte in HELLO + generate(1, b"It was", 2):
                client.sendall(bytes([byte]))
            _, descriptors = read_frame(client)
            self.read_until_finished(client)
            self.close_all(descriptors)

    def test_every_truncation(self):
        whole = HELLO + generate(1, b"It was", 2)
        for at in range(len(whole)):
            with self.connect() as client:
                client.sendall(whole[:at])

    def test_faults_are_told(self):
        for data, words in [
            (struct.pack("<I", 1 << 30) + b"x", b"longer than 1 MiB"),
            (struct.pack("<I", 0), b"or empty"),
            (frame(b"\xff" * 20), b""),
            (generate(1, b"x", 1), b"says hello first"),
            (frame(field(2, field(1, 9))), b"9"),
            (b"", b"has not said hello"),
        ]:
            with self.connect() as client:
                client.sendall(data)
                message, _ = read_frame(client)
                self.assertIn(words, message)
                self.assertNotEqual(message, b"")
                self.assertEqual(read_frame(client)[0], b"")  # and then it hangs up

    def test_hello_twice(self):
        with self.connect() as client:
            self.close_all(self.greet(client))
            client.sendall(HELLO)
            self.assertIn(b"hello once", read_frame(client)[0])

    def test_a_seventeenth_request(self):
        with self.connect() as client:
            self.close_all(self.greet(client))
            for request in range(1, 17):
                client.sendall(generate(request, b"It was", 100000))
            client.sendall(generate(17, b"x", 1))
            message = b""
            while b"16 requests" not in message:  # progress of the others may come before it
                message, _ = read_frame(client)
                self.assertNotEqual(message, b"")
            self.assertEqual(message[:3], bytes([1 << 3, 17, 5 << 3 | 2]))  # Failed, of request 17
            self.assertEqual(self.daemon.status()["connections"], 2)  # and the client is not dropped for it

    def test_a_number_that_is_taken(self):
        malformed = frame(field(1, 1) + field(3, field(1, b"x") + field(4, 5) + field(5, 1)))  # endless, and a limit
        for again in (generate(1, b"x", 1), malformed):
            with self.connect() as client:
                self.close_all(self.greet(client))
                client.sendall(generate(1, b"It was", 100000) + again)
                message = b"x"
                while message:
                    last = message
                    message, _ = read_frame(client)
                self.assertIn(b"the same number", last)

    def test_descriptors_that_nobody_wants(self):
        with self.connect() as client:
            null = os.open("/dev/null", os.O_RDONLY)
            socket.send_fds(client, [HELLO], [null])
            os.close(null)
            self.assertNotIn(b"pythia-books", read_frame(client)[0])

    def test_a_memfd_that_is_none(self):
        with self.connect() as client:
            self.close_all(self.greet(client))
            null = os.open("/dev/null", os.O_RDONLY)
            ask = frame(field(1, 1) + field(3, field(2, 1) + field(3, 100)))
            socket.send_fds(client, [ask], [null])
            os.close(null)
            message, _ = read_frame(client)
            self.assertEqual(message[2:3], bytes([5 << 3 | 2]))  # Failed

    def test_a_cursor_that_lies(self):
        with self.daemon.start("generate", "--endless", "It was") as honest, self.connect() as client:
            self.assertTrue(honest.stdout.read(10))
            descriptors = self.greet(client)
            with mmap.mmap(descriptors[1], os.fstat(descriptors[1]).st_size) as cursor:
                client.sendall(generate(1, b"It was", 100000))
                cursor[:8] = struct.pack("<Q", 1 << 60)
                message = b"x"
                while message:  # finished as disconnected, the reason, and the end
                    last = message
                    message, _ = read_frame(client)
            self.assertIn(b"broke its token ring", last)
            self.close_all(descriptors)
            self.assertTrue(honest.stdout.read(10))
            honest.kill()

    def test_the_slots_are_not_the_clients_to_write(self):
        with self.connect() as client:
            descriptors = self.greet(client)
            with self.assertRaises(PermissionError):
                mmap.mmap(descriptors[0], 4096)
            self.close_all(descriptors)


if __name__ == "__main__":
    unittest.main()
