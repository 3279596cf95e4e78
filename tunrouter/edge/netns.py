"""Network namespaces by path: telling them from other files, and working inside one.

Law: a namespace is entered only by a thread that ends there, so no thread of the agent is ever left in a pod's.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from pyroute2.netns import setns

from tunrouter.errors import ConfigError, HostError

NS_GET_NSTYPE: Final = 0xB703
CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


class Namespace:
    """The network namespace that `path` leads to now: the same one for as long as this is held, whatever becomes of it.

    Raises ConfigError: what is no network namespace is refused before any use.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            fix = "give a running container's pid, or a name that `ip netns list` shows"
            raise ConfigError(f"cannot open the network namespace {path}: {error.strerror}", fix) from None
        if _kind(self.descriptor) != CLONE_NEWNET:
            raise ConfigError(f"{path} is no network namespace", "give a path like /run/netns/NAME or /proc/PID/ns/net")
        self.inode = os.fstat(self.descriptor).st_ino

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def __del__(self) -> None:
        # Who waits for a thread's work may give up; the descriptor must live until the work is done.
        self.close()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def own_inode() -> int:
    """Of the calling thread, which may have entered another namespace than its process."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def within(namespace: Namespace, work: Callable[[], T]) -> T:
    """Runs `work` inside another network namespace, in a thread that ends with it: no namespace is ever left behind."""
    results: list[T] = []
    failures: list[BaseException] = []

    def entered() -> None:
        try:
            _enter(namespace)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=entered, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures.pop()
    return results[0]


def _enter(namespace: Namespace) -> None:
    try:
        setns(namespace.descriptor)
    except PermissionError:
        fix = "give the agent CAP_SYS_ADMIN"
        raise HostError(f"may not enter the network namespace {namespace.path}", fix) from None


def _kind(descriptor: int) -> int:
    try:
        return fcntl.ioctl(descriptor, NS_GET_NSTYPE)
    except OSError:
        return 0
