"""Which process writes a run, and whether it is still there."""

import os
import socket

import psutil


def this_process() -> str:
    """Name this process so that no other can be taken for it: host, number, start time."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.1f}"


def is_alive(owner: str, *, local: bool) -> bool:
    """Whether a process is there. One on another host may be, unless the database is on this one."""
    host, number, started = owner.split()
    if host != socket.gethostname():
        return not local
    try:
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) < 2)
    except psutil.NoSuchProcess:
        return False
