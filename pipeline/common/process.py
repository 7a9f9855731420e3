"""Identify the process that writes a run or trains a trial, and check whether it is alive."""

import os
import socket

import psutil


def this_process() -> str:
    """Return host, process id and start time: unlike the id alone they are never reused."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.1f}"


def is_alive(owner: str, *, local: bool) -> bool:
    """Whether a process is alive; on another host it may be, unless there is no other one.

    Args:
        owner: what `this_process` returned there.
        local: whether all processes are of this host.
    """
    host, pid, started = owner.split()
    if host != socket.gethostname():
        return not local
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) < 2)
    except psutil.NoSuchProcess:
        return False
