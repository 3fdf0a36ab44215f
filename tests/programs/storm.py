"""Starts processes when it is told to: a number on standard input, that many short processes.

Prints how many of them ended as they should: every second one is a fork, the others are programs,
and each exits with a status of its own. Ends with its input.
"""
import os
import sys

print("ready", flush=True)
for line in sys.stdin:
    right = 0
    for number in range(int(line)):
        code = number % 200
        if number % 2:
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {code}"], os.environ)
        else:
            pid = os.fork()
            if pid == 0:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        right += os.WIFEXITED(status) and os.WEXITSTATUS(status) == code
    print(right, flush=True)
