"""What is printed at the start."""

from argparse import Namespace
from pathlib import Path

import pytest

from app import next_steps
from app.next_steps import next_steps as steps
from trainer.problems import Language

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "tune-7f"}
SSH = {"SSH_CONNECTION": "192.0.2.9 50000 10.9.8.7 2222"}


def said(
    environment: dict[str, str],
    host: str = "127.0.0.1",
    root_path: str = "",
    token: str | None = "t",
    language: Language = "en",
) -> str:
    return steps(Namespace(host=host, root_path=root_path), 7861, token, language, environment)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "mei")
    monkeypatch.setattr("socket.gethostname", lambda: "node-3")


def test_the_address_has_token_and_prefix() -> None:
    assert "http://127.0.0.1:7861/?token=t\n" in said({})
    assert "http://127.0.0.1:7861/a/b/?token=t\n" in said({}, root_path="a/b/")
    assert "http://[::1]:7861/\n" in said({}, host="::1", token=None)


def test_the_ssh_line_names_user_and_the_host_that_was_reached() -> None:
    assert "ssh -N -L 7861:127.0.0.1:7861 mei@node-3\n" in said({})
    assert "ssh -N -L 7861:127.0.0.1:7861 -p 2222 mei@10.9.8.7\n" in said(SSH)


def test_in_a_pod_it_is_kubectls_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(next_steps, "NAMESPACE", tmp_path / "namespace")
    assert "kubectl port-forward pod/tune-7f 7861:7861\n" in said(POD, host="0.0.0.0")
    (tmp_path / "namespace").write_text("ml\n")
    words = said(POD, host="0.0.0.0")
    assert "kubectl port-forward -n ml pod/tune-7f 7861:7861\n" in words
    assert "ssh" not in words


def test_it_speaks_the_readers_language_and_is_short() -> None:
    for environment, host in (({}, "127.0.0.1"), ({}, "0.0.0.0"), (POD, "0.0.0.0")):
        words = said(environment, host, language="zh")
        assert "先在那里运行" in words
        assert len(words.strip().splitlines()) <= 4
