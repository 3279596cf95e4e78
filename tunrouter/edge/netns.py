"""Network namespaces by path: telling them from other files, and working inside one.

Law: a namespace is entered only by a thread that ends there, so no thread of the agent is ever left in a pod's.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pyroute2.netns import setns

from tunrouter.errors import ConfigError

NS_GET_NSTYPE: Final = 0xB703
CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


@contextmanager
def namespace(path: str) -> Iterator[int]:
    """An open descriptor of the network namespace at `path`; what is no such thing is refused before any use."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        fix = "give a running container's pid, or a name that `ip netns list` shows"
        raise ConfigError(f"cannot open the network namespace {path}: {error.strerror}", fix) from None
    try:
        _refuse_other_than_namespace(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def own_inode() -> int:
    """Of the calling thread, which may have entered another namespace than its process."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def within(descriptor: int, work: Callable[[], T]) -> T:
    """Runs `work` inside another network namespace, in a thread that ends with it: no namespace is ever left behind."""
    results: list[T] = []
    failures: list[BaseException] = []

    def entered() -> None:
        try:
            setns(descriptor)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=entered, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _refuse_other_than_namespace(descriptor: int, path: str) -> None:
    try:
        kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise ConfigError(f"{path} is no network namespace", "give a path like /run/netns/NAME or /proc/PID/ns/net")
