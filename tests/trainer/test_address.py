"""What machines can be refused at once for, before any of them waits for another."""

import socket
from collections.abc import Iterator

import pytest

from trainer import address
from trainer.launch import Launch
from trainer.problems import Problem


def machines(rank: int, host: str, port: int) -> Launch:
    return Launch(nodes=2, node_rank=rank, master_addr=host, master_port=port)


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_name_of_no_machine_is_refused_by_name(free: int, rank: int) -> None:
    with pytest.raises(Problem) as refused:
        address.check(machines(rank, "no-such-machine.invalid", free))
    assert refused.value.code == "address_unknown"
    assert "no-such-machine.invalid" in refused.value.sentence("zh")


def test_a_port_that_is_taken_is_refused_on_the_first_machine_only(taken: int) -> None:
    with pytest.raises(Problem) as refused:
        address.check(machines(0, "127.0.0.1", taken))
    assert (refused.value.code, refused.value.values["port"]) == ("port_taken", taken)
    address.check(machines(1, "127.0.0.1", taken))


def test_an_address_of_another_machine_is_refused_on_the_first(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ANSWER_S", 0.2)
    with pytest.raises(Problem) as refused:
        address.check(machines(0, "192.0.2.1", free))  # RFC 5737: of no machine
    assert refused.value.code == "address_elsewhere"


def test_a_good_address_passes_and_its_port_can_be_used_right_after(free: int) -> None:
    for _ in range(2):
        address.check(machines(0, "127.0.0.1", free))
    socket.create_server(("", free)).close()
    address.check(machines(0, "localhost", free))


def test_one_machine_needs_no_address(taken: int) -> None:
    address.check(Launch(master_addr="", master_port=taken))
