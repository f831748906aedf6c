"""Users and their clients, many at once: tenant.c started for each user. Python's standard library only."""
import contextlib
import json
import os
import pickle
import resource
import subprocess
import tempfile
import time
import traceback

from streamkv_test import BIN, DEADLINE, LIBC, Program, skip
import wire

IS_ROOT = os.geteuid() == 0
USERS = (60001, 60002, 60003, 60004) if IS_ROOT else (os.getuid(),)
NIGHTLY = bool(os.environ.get("STREAMKV_NIGHTLY"))
STORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/story.txt")


def words():
    with open(STORY) as file:
        return file.read().split()


def needs_root(what):
    if not IS_ROOT:
        skip(what, "two users are needed, and only root can be both")


def needs_descriptors(what, n):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < n:
        skip(what, "it takes %d descriptors, and this machine's limit is %d" % (n, most))


class Clients:
    """A list of clients for each user (tenant.c says what a client asks), started; wait() gives their answers."""

    def __init__(self, daemon, clients, together=False, **options):
        os.chmod(daemon.folder, 0o711)  # as for every user; the socket has a mode of its own
        self.running = []
        for uid, asks in clients.items():
            command = [os.path.join(BIN, "tenant"), daemon.socket]
            command += [str(uid)] if uid != os.getuid() else []
            command += ["together"] if together else []
            said, heard = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
            for ask in asks:
                said.write(json.dumps(ask) + "\n")
            said.seek(0)
            self.running.append((uid, len(asks), said, heard,
                                 Program(command, stdin=said, stdout=heard, stderr=subprocess.PIPE, **options)))

    def are_running(self):
        return any(process.poll() is None for *_, process in self.running)

    def wait(self):
        """{uid: [[answer, ...] for each client]}"""
        try:
            return {uid: self.answers(*rest) for uid, *rest in self.running}
        finally:
            for *_, process in self.running:
                process.kill()

    def answers(self, n_clients, said, heard, process):
        with process, said, heard:
            _, err = process.communicate(timeout=DEADLINE)
            assert (process.returncode, err) == (0, b""), err
            heard.seek(0)
            lines = [json.loads(line) for line in heard]
        answers = [[] for _ in range(n_clients)]
        for line in sorted(lines, key=lambda line: line["ask"]):
            answers[line["client"]].append(line)
        return answers


def run_clients(daemon, clients, **options):
    return Clients(daemon, clients, **options).wait()


def what_was_said(answer):
    """Of an answer all that must be the same whoever else is there: not what of the prompt another session of the user
    had evaluated already."""
    others = ("client", "ask", "place", "evaluated_tokens", "reused_tokens", "live_min")
    return {name: value for name, value in answer.items() if name not in others}


def run_alone(daemon, chains):
    """Each chain of asks, one after the other, with nobody else there: [[answer, ...], ...]"""
    asks = [dict(ask, again=True) for chain in chains for ask in chain]
    answers = iter(run_clients(daemon, {os.getuid(): [asks]})[os.getuid()][0])
    return [[next(answers) for _ in chain] for chain in chains]


def wait_for(daemon, **least):
    """Until the daemon's status has these numbers, or greater ones; returns it."""
    end = time.monotonic() + DEADLINE
    while True:
        status = daemon.status()
        if all(status[name] >= number for name, number in least.items()):
            return status
        assert time.monotonic() < end, (least, status)


def as_user(uid, function, *arguments):
    """What the function returns, in a process of that user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = (True, function(*arguments))
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        is_good, answer = pickle.load(file)
    os.waitpid(child, 0)
    assert is_good, answer
    return answer


@contextlib.contextmanager
def small_memory_pages():
    """A daemon that is started meanwhile takes memory as it needs it, not by 2 MiB."""
    LIBC.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
    try:
        yield
    finally:
        LIBC.prctl(41, 0, 0, 0, 0)


def drop_sessions(daemon, uid, names):
    """Deletes that user's sessions of these names, all of which are there."""
    def drop():
        with wire.Client(daemon) as client:
            for i, name in enumerate(names, 1):
                client.sendall(wire.session(i, wire.DELETE, name.encode()))
                body, found = client.answer(i, wire.SESSION, wire.FAILED)
                assert body == wire.SESSION, (name, found)

    drop() if uid == os.getuid() else as_user(uid, drop)


def resident_bytes(daemon):
    """Of the daemon's own memory: without the files that it maps."""
    with open("/proc/%d/status" % daemon.process.pid) as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
