"""What is done so that a daemon does not run out of file descriptors, and what when it has."""

import asyncio
import errno
import logging
import os
import resource
import socket
import subprocess
import sys

import pytest

from qwen_edge.daemon.descriptors import Reserve, backlog_within, connection_limit, quiet_when_used_up


@pytest.mark.parametrize(
    ("wanted", "descriptors", "most"),
    [(256, 65_536, 256), (256, 1024, 256), (256, 256, 161), (256, 64, 17)],
)
def test_so_many_connections_leave_descriptors_for_the_rest(wanted, descriptors, most):
    assert connection_limit(wanted, descriptors) == most
    assert most + backlog_within(descriptors) <= descriptors - 42


def test_with_hardly_any_there_are_a_few_connections_yet():
    assert connection_limit(256, 20) == 4
    assert connection_limit(2, 20) == connection_limit(2, 65_536) == 2
    assert backlog_within(20) == 1


def test_the_limit_is_raised_to_what_the_system_allows_and_never_lowered():
    code = (
        "import resource, sys; from qwen_edge.daemon.descriptors import allowed, raise_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))\n"
        "raise_limit(); print(allowed())"
    )

    def raised(soft: int, hard: int) -> int:
        command = [sys.executable, "-c", code, str(soft), str(hard)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert raised(64, 512) == 512
    assert raised(64, 64) == 64
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert raised(256, most) == min(most, 65_536)
    if most >= 70_000:
        assert raised(70_000, 70_000) == 70_000


def test_what_is_held_in_reserve_is_there_when_nothing_else_is():
    reserve = Reserve(2)
    with pytest.raises(OSError, match="Too many open files"), _no_descriptors():
        socket.socketpair()
    with _no_descriptors():
        with reserve.lent():
            for end in socket.socketpair():
                end.close()
        with reserve.lent():
            for end in socket.socketpair():
                end.close()


class _no_descriptors:
    """None is free meanwhile."""

    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        last = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last, self._limits[1]))
        self._filled = []
        try:
            while True:
                self._filled.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            os.close(last)

    def __exit__(self, *_: object) -> None:
        for one in self._filled:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


def test_a_connection_that_cannot_be_accepted_is_one_line_a_minute_and_all_else_is_shown_whole(caplog):
    now = [0.0]
    loop = asyncio.new_event_loop()
    handle = quiet_when_used_up(lambda: now[0])
    full = OSError(errno.EMFILE, "Too many open files")
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            handle(loop, {"message": "socket.accept() out of system resource", "exception": full})
        assert [record.getMessage() for record in caplog.records] == [
            "new connections cannot be accepted now; the daemon tries again every second: Too many open files"
        ]
        assert not caplog.records[0].exc_info
        now[0] = 61.0
        handle(loop, {"message": "socket.accept() out of system resource", "exception": full})
        handle(loop, {"message": "Task exception was never retrieved", "exception": KeyError("ours")})
    loop.close()
    assert len(caplog.records) == 3
    assert caplog.records[2].exc_info[0] is KeyError
