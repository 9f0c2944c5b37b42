"""What an error's class means to a service manager."""

import re
from pathlib import Path

import pytest

from qwen_edge.cli import main
from qwen_edge.core.errors import ConfigError, EngineError, NotNowError, UnservableError, UserError

UNIT = Path(__file__).resolve().parents[3] / "systemd" / "qwen-edge.service"


def prevented() -> set[int]:
    (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(), flags=re.MULTILINE)
    return {int(code) for code in codes.split()}


@pytest.mark.parametrize("kind", [UserError, ConfigError, UnservableError])
def test_what_no_restart_mends_is_not_restarted(kind):
    assert kind.exit_code in prevented()


@pytest.mark.parametrize("kind", [NotNowError, EngineError])
def test_what_may_mend_itself_is_started_again(kind):
    assert kind.exit_code == 75
    assert kind.exit_code not in prevented()


def test_a_model_that_cannot_be_served_has_an_exit_code_of_its_own(monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise UnservableError("The chat template is refused.")

    monkeypatch.setattr("qwen_edge.cli.serve.serve", refuse)
    with pytest.raises(SystemExit) as ended:
        main("serve")
    assert ended.value.code == 78
    assert capsys.readouterr().err == "qwen-edge: The chat template is refused.\n"
