"""The wire by hand (doc/PROTOCOL.md), for tests that say what no client of ours would. Python's standard library only."""
import array
import mmap
import os
import select
import socket
import struct

from streamkv_test import DEADLINE


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def frame(message):
    return struct.pack("<I", len(message)) + message


def fields(message):
    """{number: [value, ...]} of a message of varints, bytes and fixed-size numbers."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = number()
        n_bytes = {0: None, 1: 8, 5: 4}.get(key & 7, 0)
        if n_bytes is None:
            value = number()
        else:
            n_bytes = n_bytes or number()
            value, at = message[at:at + n_bytes], at + n_bytes
        found.setdefault(key >> 3, []).append(value)
    return found


DENSE = 3  # of Mode
HELLO = frame(field(2, field(1, 1)))
WELCOME, PROGRESS, FINISHED, FAILED, STATUS, SESSION, LISTING = 2, 3, 4, 5, 8, 10, 11  # bodies of ServerMessage


def generate(request, prompt, n_tokens, session=b"", endless=False, mode=None):
    """Asked with ignore_eos, so that as many tokens come as were wanted."""
    limit = field(5, 1) if endless else field(4, n_tokens)
    return frame(field(1, request) + field(3, field(1, prompt) + limit + field(13, 1) +
                                           (field(6, session) if session else b"") +
                                           (field(7, field(1, mode)) if mode else b"")))


def cancel(target):
    return frame(field(6, field(1, target)))


def status(request):
    return frame(field(1, request) + field(7, b""))


SHOW, FORK, RESET, DELETE, SAVE, _, KEEP = range(1, 8)  # verbs of Session; LOAD has a memfd


def session(request, verb, name, *more):
    return frame(field(1, request) + field(10, field(1, verb) + field(2, name) + b"".join(more)))


def read_frame(client):
    """One frame and its descriptors; b"" at the end."""
    data, descriptors = b"", array.array("i")
    while len(data) < 4 or len(data) < 4 + struct.unpack("<I", data[:4])[0]:
        wanted = 4 - len(data) if len(data) < 4 else 4 + struct.unpack("<I", data[:4])[0] - len(data)
        part, ancillary, _, _ = client.recvmsg(wanted, socket.CMSG_SPACE(16))
        for _, _, bytes_ in ancillary:
            descriptors.frombytes(bytes_)
        if not part:
            return b"", descriptors
        data += part
    return data[4:], descriptors


class Client(socket.socket):
    """A connection that has said hello, and its ring, which is read when the test says so."""

    def __init__(self, daemon, n_slots=256, name=b""):
        super().__init__(socket.AF_UNIX)
        self.settimeout(DEADLINE)
        self.connect(daemon.socket)
        self.hello = frame(field(2, field(1, 1) + field(2, n_slots) + (field(3, name) if name else b"")))
        self.sendall(self.hello)
        self.welcome, self.descriptors = read_frame(self)
        self.n_slots, self.tail, self.received = n_slots, 0, b""
        self.slots = mmap.mmap(self.descriptors[0], 192 + 64 * n_slots, prot=mmap.PROT_READ)
        self.cursor = mmap.mmap(self.descriptors[1], 4096)
        # As one load, and one store: struct does a byte after the other, and the other side may look in between.
        self.head_word = memoryview(self.slots)[64:72].cast("Q")
        self.tail_word = memoryview(self.cursor)[0:8].cast("Q")

    def close(self):
        if self.fileno() >= 0:
            self.head_word.release()
            self.tail_word.release()
            self.slots.close()
            self.cursor.close()
            for descriptor in self.descriptors:
                os.close(descriptor)
        super().close()

    def __exit__(self, *_):
        self.close()

    def answer(self, request, *bodies):
        """The request's next message with one of these bodies: (body, its fields)."""
        while True:
            message, _ = read_frame(self)
            assert message, "the daemon has hung up"
            self.received += message
            found = fields(message)
            body = next(number for number in found if number > 1)
            if found.get(1, [0])[0] == request and body in bodies:
                return body, fields(found[body][0])

    def wait(self):
        """Until something is in the ring."""
        while self.head_word[0] == self.tail:
            struct.pack_into("<I", self.cursor, 64, 1)
            if self.head_word[0] == self.tail:
                assert select.select(self.descriptors[2:3], [], [], DEADLINE)[0]
            struct.pack_into("<I", self.cursor, 64, 0)
            try:
                os.read(self.descriptors[2], 4096)
            except BlockingIOError:
                pass

    def take_slots(self, most=1 << 20):
        """What the ring holds: [(request, id, flags, text), ...]"""
        head = min(self.head_word[0], self.tail + most)
        taken = []
        for i in range(self.tail, head):
            at = 192 + 64 * (i % self.n_slots)
            request, id_ = struct.unpack_from("<Ii", self.slots, at)
            flags, n_text_bytes = self.slots[at + 22], self.slots[at + 23]
            taken.append((request, id_, flags, self.slots[at + 24:at + 24 + n_text_bytes]))
        self.tail = head
        self.tail_word[0] = self.tail
        try:
            os.write(self.descriptors[3], b"x")  # whether it waits or not
        except BlockingIOError:
            pass
        return taken


MORE, CONTINUES, SPECIAL, NO_TOKEN, LAST = 1, 2, 4, 8, 16


def ids_of(slots):
    return [id_ for _, id_, flags, _ in slots if not flags & (CONTINUES | NO_TOKEN)]


def is_last(slots):
    return any(flags & LAST and not flags & MORE for _, _, flags, _ in slots)
