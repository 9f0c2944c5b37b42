"""The doctor tries the port as the daemon will: every address of the host."""

import socket

import pytest

from qwen_edge.cli.doctor import check_port


@pytest.fixture(params=["127.0.0.1", "::1"])
def taken(request):
    """Somebody else listens: their host and port."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with listener:
        yield request.param, listener.getsockname()[1]


def test_a_port_in_use_is_bad_with_the_command_that_shows_by_what(taken):
    host, port = taken
    finding = check_port(host, port)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert (finding.mark, finding.what) == ("bad", f"cannot listen on {where}: Address already in use")
    assert f"ss -ltnp 'sport = :{port}'" in finding.remedy


def test_a_port_that_is_free_is_well(taken):
    host, _ = taken
    assert check_port(host, 0).mark == "ok"


def test_a_host_that_nobody_knows_is_bad():
    finding = check_port("no-such-host.invalid", 8080)
    assert (finding.mark, finding.remedy) == ("bad", "choose another server.host or server.port")


def test_an_address_of_another_machine_is_bad():
    finding = check_port("192.0.2.1", 8080)
    assert finding.what == "cannot listen on 192.0.2.1:8080: Cannot assign requested address"
    assert finding.remedy == "choose another server.host or server.port"
