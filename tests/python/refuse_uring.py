"""Installs a seccomp filter that refuses io_uring, as container runtimes do, and becomes the given command.

python3 refuse_uring.py COMMAND ARGUMENT…
"""

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
SETUP, ENTER, REGISTER = 425, 426, 427  # the same on every architecture

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
PROGRAM = [
    (LOAD, 0, 0, 0),  # the number of the system call
    (EQUAL, 3, 0, SETUP),
    (EQUAL, 2, 0, ENTER),
    (EQUAL, 1, 0, REGISTER),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, REFUSE),
]


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def main():
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in PROGRAM)
    buffer = ctypes.create_string_buffer(code)
    program = Filter(len(PROGRAM), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit(f"no_new_privs: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


main()
