"""One thread of a process, held by its debugger: no signal does that to one alone."""
import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # __WALL: of others' threads too


def ptrace(request, tid):
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    LIBC.ptrace.restype = ctypes.c_long
    if LIBC.ptrace(request, tid, None, None) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Stopped:
    def __init__(self, pid, name):
        folder = "/proc/%d/task" % pid
        for tid in os.listdir(folder):
            with open(os.path.join(folder, tid, "comm")) as file:
                if file.read().strip() == name:
                    self.tid = int(tid)

    def __enter__(self):
        ptrace(PTRACE_SEIZE, self.tid)
        ptrace(PTRACE_INTERRUPT, self.tid)
        os.waitpid(self.tid, WALL)
        return self

    def is_gone(self):
        """Whether it has been killed meanwhile. Nobody else can see the end of its process before this has."""
        return os.waitpid(self.tid, WALL | os.WNOHANG)[0] == self.tid

    def __exit__(self, *error):
        try:
            ptrace(PTRACE_DETACH, self.tid)
        except ProcessLookupError:
            pass  # the process has ended meanwhile
