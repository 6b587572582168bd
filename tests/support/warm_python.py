"""In place of Python: has the process forked where everything is imported, and lives and dies with it.

A copy of this file lies beside the socket of the server. It imports next to nothing, so that it takes no time.
"""

import os
import signal
import socket
import sys

MESSAGE = 1 << 20
SOCKET, PATH = "socket", "path"
"""Beside the copy: where to ask, and the PYTHONPATH that the server has."""
COLD = "KD_MIL_COLD"
"""Set where what a command starts is to import anew."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def ask(folder, words, cwd, environment, descriptors):
    """The connection that says the id of the process `python WORDS`, then how it ended; it dies when this is closed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(os.path.join(folder, SOCKET))
    request = repr({"words": list(words), "cwd": cwd, "environment": environment})
    socket.send_fds(connection, [request.encode("utf-8", "surrogateescape")], descriptors)
    return connection


def is_served(folder, words):
    """Whether the server's imports are those of the process, and it is said how many threads it has."""
    with open(os.path.join(folder, PATH), encoding="utf-8") as file:
        path = file.read()
    same = os.environ.get("PYTHONPATH") == path and os.environ.get("OMP_NUM_THREADS", "").isdigit()
    return same and COLD not in os.environ and words[:1] == ["-m"] and words[1].startswith("kd_mil.")


def main():
    """What the process of these words does."""
    folder, words, environment = os.path.dirname(os.path.abspath(__file__)), sys.argv[1:], dict(os.environ)
    if words[:1] == ["-u"]:
        words, environment["PYTHONUNBUFFERED"] = words[1:], "1"
    if not is_served(folder, words):
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    connection = ask(folder, words, os.getcwd(), environment, [0, 1, 2])
    process = int(connection.recv(MESSAGE))
    for signum in PASSED_ON:
        signal.signal(signum, lambda signum, frame: os.kill(process, signum))
    code = int(connection.recv(MESSAGE))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
