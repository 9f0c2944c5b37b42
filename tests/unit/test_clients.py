"""The frame of the client tests: the scripted model, the environments, the table, and docs/clients.md."""

import re
from pathlib import Path

import pytest

from tests.clients import environments, run
from tests.clients.environments import HERE, NotInstalledError, all_clients
from tests.clients.run import FAST, Row, table
from tests.clients.scripted import answer

ROOT = HERE.parents[1]


def prompt(*turns: tuple[str, str], thinks: bool = True) -> str:
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return said + "<|im_start|>assistant\n" + ("" if thinks else "<think>\n\n</think>\n\n")


def test_the_scripted_model_says_what_the_user_says():
    assert answer(prompt(("user", "@say It is\\non."))) == "It is\non."
    assert answer(prompt(("user", "hi"))) == "Hello!"
    assert answer(prompt(("user", "@words 2"))) == "word word "


def test_the_scripted_model_thinks_only_where_it_may():
    assert answer(prompt(("user", "@think Hm.\n@say Yes."))) == "<think>\nHm.\n</think>\n\nYes."
    assert answer(prompt(("user", "@think Hm.\n@say Yes."), thinks=False)) == "Yes."


def test_the_scripted_model_goes_on_with_the_turn_that_comes_next():
    script = ("user", '@call set_light {"room": "bath"}\n@then\n@say It is on.')
    call = '<tool_call>\n{"name": "set_light", "arguments": {"room": "bath"}}\n</tool_call>'
    assert answer(prompt(("system", "s"), script)) == call
    assert answer(prompt(script, ("assistant", call), ("tool", "done"))) == "It is on."
    assert answer(prompt(script, ("assistant", call), ("user", "Observation: done"))) == "It is on."
    assert answer(prompt(("user", "@say old"), ("assistant", "old"), script)) == call


def test_the_scripted_model_continues_a_text_that_no_template_rendered():
    assert answer("@say Once") == "Once"


def test_what_is_installed_is_pinned():
    for client in all_clients().values():
        if client.in_javascript:
            pins = re.findall(
                r'": "([^"]*)"', (client.folder / "package.json").read_text().partition("dependencies")[2]
            )
            assert pins and all(re.fullmatch(r"\d+\.\d+\.\d+", pin) for pin in pins), client.name
        else:
            lines = (client.folder / "requirements.txt").read_text().split()
            assert lines and all(re.fullmatch(r"[\w\[\]-]+==[\w.]+", line) for line in lines), client.name


def test_the_tests_of_a_client_import_nothing_of_the_project():
    for client in all_clients().values():
        for path in [*client.folder.glob("*.py"), HERE / "conftest.py"]:
            assert not re.search(r"^\s*(from|import) (qwen_edge|tests|scripts)\b", path.read_text(), re.MULTILINE), path


def test_the_clients_that_ci_runs_are_there():
    assert set(FAST) <= set(all_clients())


def test_the_docs_have_a_line_for_each_client_with_its_version():
    lines = [line for line in (ROOT / "docs" / "clients.md").read_text().splitlines() if line.startswith("| `")]
    assert {re.match(r"\| `([\w-]+)`", line)[1] for line in lines} == set(all_clients())
    for line in lines:
        client = all_clients()[re.match(r"\| `([\w-]+)`", line)[1]]
        assert client.name == "recorded" or client.version in line.replace("`", "").partition(" |")[0], line


def test_a_machine_without_node_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotInstalledError, match="apt install nodejs npm"):
        environments.check_node()


def test_an_environment_is_made_once_for_the_same_requirements(monkeypatch, tmp_path):
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(environments, "BUILD", tmp_path / "build")
    monkeypatch.setattr(environments, "_run", lambda client, *command: made.append(command))
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "requirements.txt").write_text("some==1.0\n")
    client = environments.all_clients(tmp_path)["some"]
    assert client.version == "some 1.0"
    environments.make(client)
    first = len(made)
    environments.make(client)
    assert len(made) == first > 0
    (folder / "requirements.txt").write_text("some==1.1\n")
    environments.make(client)
    assert len(made) == 2 * first


def test_a_row_is_good_only_if_tests_ran_and_all_passed():
    client = all_clients()["openai-python"]
    assert Row(client, 3).good
    for bad in (Row(client), Row(client, 3, 1), Row(client, 3, note="exit code 2")):
        assert not bad.good
    assert "openai-python | openai " in table([Row(client, 3, 1)])


def test_skipped_tests_count_as_failed(tmp_path: Path):
    report = tmp_path / "report.xml"
    report.write_text("<a><testcase/><testcase><skipped/></testcase><testcase><failure/></testcase></a>")
    assert run._counted_xml(report) == (1, 2)
    assert run._counted_xml(tmp_path / "missing.xml") == (0, 1)
    log = tmp_path / "log"
    log.write_text("ok 1 - a\n# tests 5\n# pass 3\n# fail 1\n# skipped 1\n")
    assert run._counted_tap(log) == (3, 2)


def test_an_unknown_client_is_refused_with_the_names_that_there_are(capsys):
    with pytest.raises(SystemExit) as error:
        run._chosen(["openai"])
    assert error.value.code == 2
    assert "openai-python" in capsys.readouterr().err
    assert [client.name for client in run._chosen(["fast"])] == list(FAST)
    assert len(run._chosen([])) == len(all_clients())
