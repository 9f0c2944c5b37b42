"""What cannot be meant on the command line of `qwen-edge chat` is said before anything is started."""

import pytest

from qwen_edge.cli import main


@pytest.mark.parametrize("target", [["http://127.0.0.1:1"], ["127.0.0.1:1"], ["-m", "127.0.0.1:1"]])
def test_settings_for_a_server_that_is_not_started_are_refused(capsys, target):
    with pytest.raises(SystemExit) as stopped:
        main("chat", *target, "-p", "hi", "-c", "some.yaml")
    assert stopped.value.code == 2
    assert "-c is for a daemon that is started, and http://127.0.0.1:1 is asked." in capsys.readouterr().err
