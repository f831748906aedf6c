"""doc/PROTOCOL.md shows a whole exchange, byte by byte: it is one that happened, and happens again.

    test_exchange.py                 compares the document with an exchange that is made now
    test_exchange.py --write         writes such an exchange into the document

What is said of the bytes is made from proto/streamkv.proto, so neither bytes nor words are anybody's to write."""
import os
import re
import struct
import sys
import unittest

from streamkv_test import Daemon
from wire import FINISHED, Client, field, fields, frame, read_frame

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENT = os.path.join(ROOT, "doc/PROTOCOL.md")
HEADING = "## A whole exchange, byte by byte\n"
MODEL = "pythia-books"

GENERATE = frame(field(1, 1) + field(3, field(1, b"Once upon a time") + field(4, 3) + field(8, field(7, 7))))
TOKENIZE = frame(field(1, 2) + field(4, field(1, b"Hello.")))

# Of one exchange alone, and so left out of the comparison; a Progress may come or not.
VOLATILE = {"queue_ns", "prefill_ns", "first_token_ns", "decode_ns", "step_ns", "put_us", "logprob"}
SLOT = [("request", "I"), ("id", "i"), ("logprob", "f"), ("put_us", "I"), ("live", "I"), ("evicted", "H"), ("flags", "B"),
        ("n_text_bytes", "B")]
FLAGS = ["MORE", "CONTINUES", "SPECIAL", "NO_TOKEN", "LAST", "STEP", "UNSCORED"]


def read_proto():
    """{message: {number: (type, name, repeated)}} and {enum: {number: name}}"""
    with open(os.path.join(ROOT, "proto/streamkv.proto")) as file:
        text = re.sub(r"//[^\n]*", "", file.read())
    messages, enums = {}, {}
    for kind, name, body in re.findall(r"^(message|enum) (\w+) \{(.*?)^\}", text, re.M | re.S):
        if kind == "enum":
            enums[name] = {int(number): value for value, number in re.findall(r"(\w+) = (\d+);", body)}
        else:
            found = re.findall(r"(repeated )?(\w+) (\w+) = (\d+)", body)
            messages[name] = {int(number): (type_, name_, bool(many)) for many, type_, name_, number in found}
    messages.update({name: {} for name in re.findall(r"^message (\w+) \{\}", text, re.M)})
    return messages, enums


MESSAGES, ENUMS = read_proto()


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def decode(data, at, end, message, depth=0):
    """[(from, to, depth, name, value), ...] of the bytes of a message; a message inside is told by its head, value None."""
    parts = []
    while at < end:
        begin = at
        key, at = varint(data, at)
        type_, name, _ = MESSAGES[message][key >> 3]
        if key & 7 == 0:
            value, at = varint(data, at)
            value = ENUMS.get(type_, {}).get(value, bool(value) if type_ == "bool" else value)
        elif key & 7 == 2:
            length, at = varint(data, at)
            if type_ in MESSAGES:
                parts.append((begin, at, depth, name, None))
                parts += decode(data, at, at + length, type_, depth + 1)
                at += length
                continue
            value = data[at:at + length]
            at += length
            if type_ == "int32":  # packed
                ids, place = [], 0
                while place < length:
                    id_, place = varint(value, place)
                    ids.append(id_)
                value = ids
            else:
                value = value.decode()
        else:
            format_ = {5: "<f", 1: "<d"}[key & 7]
            value, at = struct.unpack_from(format_, data, at)[0], at + struct.calcsize(format_)
        parts.append((begin, at, depth, name, value))
    return parts


def decode_frame(data, sender):
    length, = struct.unpack_from("<I", data)
    return [(0, 4, 0, "length", length)] + decode(data, 4, 4 + length, sender + "Message")


def decode_slot(data):
    parts, at = [], 0
    for name, format_ in SLOT:
        value, = struct.unpack_from("<" + format_, data, at)
        if name == "flags":
            value = " ".join(flag for bit, flag in enumerate(FLAGS) if value >> bit & 1) or "none"
        parts.append((at, at + struct.calcsize(format_), 0, name, value))
        at = parts[-1][1]
    n_text_bytes = parts[-1][4]
    parts.append((at, at + 40, 0, "text", data[at:at + n_text_bytes].decode()))
    return parts


def show(name, value):
    if isinstance(value, str) and name not in ("mode", "stop", "flags"):
        return '"%s"' % value.replace("\n", "\\n")
    if isinstance(value, float):
        return "%.6f" % value
    return str(value).lower() if isinstance(value, bool) else str(value)


def rows(data, parts):
    for begin, end, depth, name, value in parts:
        said = "  " * depth + name + ("" if value is None else " " + show(name, value))
        for at in range(begin, end, 16):
            hexed = " ".join("%02x" % byte for byte in data[at:min(at + 16, end)])
            yield ("%04x  %-47s  %s" % (at, hexed, said if at == begin else "")).rstrip()


class Step:
    """What one side sends, or puts into the ring."""

    def __init__(self, sender, data, n_descriptors=0):
        self.sender, self.data, self.n_descriptors = sender, data, n_descriptors
        self.parts = decode_slot(data) if sender == "Ring" else decode_frame(data, sender)
        self.name = "slot" if sender == "Ring" else next(p[3] for p in self.parts if p[2] == 0 and p[4] is None)

    def text(self):
        head = {"Client": "client to daemon: ", "Server": "daemon to client: ", "Ring": "in the ring: "}[self.sender] + self.name
        if self.n_descriptors:
            head += ", and beside its first byte %d descriptors" % self.n_descriptors
        return "\n".join([head, *rows(self.data, self.parts), ""])

    def lasting(self):
        """What another exchange must have too."""
        told = []
        for _, _, depth, name, value in self.parts:
            told.append((depth, name, "?" if name in VOLATILE or name == "length" and self.name == "finished" else value))
        return (self.sender, self.n_descriptors, told)


def make():
    """The exchange, now: [Step, ...]"""
    daemon = Daemon("--weights", "f32", model=MODEL)
    with Client(daemon, 256, b"example 1") as client:
        steps = [Step("Client", client.hello), Step("Server", frame(client.welcome), len(client.descriptors))]
        client.sendall(GENERATE)
        steps.append(Step("Client", GENERATE))
        answers = []
        while not answers or FINISHED not in fields(answers[-1]):
            answers.append(read_frame(client)[0])
        n_slots, = struct.unpack_from("<Q", client.slots, 64)
        steps += [Step("Server", frame(answer)) for answer in answers[:-1]]
        steps += [Step("Ring", client.slots[192 + 64 * i:256 + 64 * i]) for i in range(n_slots)]
        steps.append(Step("Server", frame(answers[-1])))
        client.take_slots()
        client.sendall(TOKENIZE)
        steps += [Step("Client", TOKENIZE), Step("Server", frame(read_frame(client)[0]))]
    assert daemon.stop() == 0
    return steps


def read_document():
    """The exchange of the document, as text and as steps, and the document before and behind it."""
    with open(DOCUMENT) as file:
        document = file.read()
    begin = document.index("```\n", document.index(HEADING)) + 4
    end = document.index("```", begin)
    steps = []
    for part in document[begin:end].strip("\n").split("\n\n") if end > begin + 1 else []:
        head, *lines = part.split("\n")
        data = bytes.fromhex("".join(line[6:53] for line in lines))
        said = re.match(r"(client|daemon|in the ring).*?(?:(\d+) descriptors)?$", head)
        sender = {"client": "Client", "daemon": "Server"}.get(said.group(1), "Ring")
        steps.append(Step(sender, data, int(said.group(2) or 0)))
    return document[begin:end], steps, document[:begin], document[end:]


class Exchange(unittest.TestCase):
    def test_words(self):
        text, steps, _, _ = read_document()
        self.assertGreater(len(steps), 8)
        self.assertEqual(text, "\n".join(step.text() for step in steps), "the words are not those of the bytes")

    def test_happens_again(self):
        _, steps, _, _ = read_document()
        now = make()
        kept = [[step.lasting() for step in all_ if step.name != "progress"] for all_ in (steps, now)]
        self.maxDiff = None
        self.assertEqual(*kept, "the document's exchange is not what happens now; test_exchange.py --write makes it anew")
        logprobs = [[value for step in all_ for _, _, _, name, value in step.parts if name == "logprob"] for all_ in (steps, now)]
        for then, today in zip(*logprobs, strict=True):
            self.assertAlmostEqual(then, today, 2)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        text, _, before, behind = read_document()
        with open(DOCUMENT, "w") as file:
            file.write(before + "\n".join(step.text() for step in make()) + behind)
    else:
        unittest.main()
