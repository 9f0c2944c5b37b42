"""The first command a person types names what is missing, and what installs it."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from scripts.installer import compiler, console, environment, place, processes
from scripts.installer import pip as installing

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "bootstrap.py"


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gives_up(capsys, call) -> str:
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def fake_compiler(folder: Path, script: str) -> None:
    (folder / "c++").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "c++").chmod(0o755)


def test_a_missing_compiler_is_named(bootstrap, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = gives_up(capsys, compiler.check_compiler)
    assert "no C++ compiler" in said
    assert "sudo apt install build-essential" in said


def test_a_compiler_that_does_not_work_is_named_with_its_complaint(bootstrap, capsys, monkeypatch, tmp_path):
    fake_compiler(tmp_path, "echo 'fatal error: thread: No such file' >&2; exit 1")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    assert "does not work (fatal error: thread: No such file)" in gives_up(capsys, compiler.check_compiler)


def test_a_compiler_that_works_is_enough(bootstrap, monkeypatch, tmp_path):
    fake_compiler(tmp_path, "exit 0")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    compiler.check_compiler()


def test_llama_cpp_is_built_without_amx_where_there_is_some(bootstrap, monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx512f amx_bf16 avx512_fp16 amx_tile amx_int8\nflags : amx_tile\n")
    fake_compiler(tmp_path, "exit 0")
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    assert compiler.without_amx(cpuinfo) == "-mno-amx-bf16 -mno-amx-int8 -mno-amx-tile"
    fake_compiler(tmp_path, "exit 1")  # it is too old to know the flags
    assert compiler.without_amx(cpuinfo) == ""
    cpuinfo.write_text("flags : avx2 avx512f\n")
    assert compiler.without_amx(cpuinfo) == compiler.without_amx(tmp_path / "nowhere") == ""


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_with_the_package(bootstrap, capsys, monkeypatch, tmp_path, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    said = gives_up(capsys, lambda: environment.make_venv(tmp_path / "venv", None))
    assert f"sudo apt install python{sys.version_info.major}.{sys.version_info.minor}-venv" in said


def test_an_old_python_is_told(bootstrap, capsys, monkeypatch):
    monkeypatch.setattr(bootstrap, "_OLDEST", (9, 9))
    assert "is too old" in gives_up(capsys, bootstrap.main)


def test_a_failing_pip_shows_the_end_of_its_log(bootstrap, capsys, tmp_path):
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho 'ERROR: no matching distribution'\nexit 1\n")
    pip.chmod(0o755)
    with pytest.raises(SystemExit):
        installing.link(pip, [], tmp_path)
    shown = capsys.readouterr()
    assert "ERROR: no matching distribution" in shown.out
    assert "Installing failed" in shown.err


def test_flags_of_the_user_win(bootstrap, monkeypatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert "CMAKE_ARGS" not in compiler.build_flags()
    monkeypatch.delenv("CMAKE_ARGS")
    assert "-DLLAVA_BUILD=OFF" in compiler.build_flags()["CMAKE_ARGS"]


def test_progress_in_a_log_is_a_line_now_and_then(bootstrap, capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = console.Progress()
    for i in range(40):
        now += 1.0
        progress.show(f"  [{i}/140] g++ -c llama-{i}.cpp")
    assert capsys.readouterr().out.splitlines() == [
        "    15 s  compiling llama.cpp: 14 of 140 files",
        "    30 s  compiling llama.cpp: 29 of 140 files",
    ]


OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def install(bootstrap, monkeypatch, tmp_path):
    """Runs the whole script with a pip that installs everything at once; returns what it was asked to install."""
    asked = []
    monkeypatch.setattr(installing, "link", lambda _python, extras, _root: asked.append(extras))
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    (tmp_path / "setup.cfg").write_text("a")
    (tmp_path / "pyproject.toml").write_text("a")

    def run(*extras: str) -> list[list[str]]:
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", str(tmp_path / "venv"), *extras])
        bootstrap.main()
        return list(asked)

    return run


@pytest.fixture
def venv(bootstrap, monkeypatch, tmp_path):
    """A virtual environment whose Python says what is asked of it. Making it anew takes no time here."""

    def fake(version: str) -> None:
        (tmp_path / "venv" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "venv" / "pyvenv.cfg").write_text("")
        python = tmp_path / "venv" / "bin" / "python"
        python.unlink(missing_ok=True)
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)

    def create(_venv):
        (tmp_path / "venv" / ".qwen-edge").unlink(missing_ok=True)  # --clear
        fake(OURS)
        return 0

    monkeypatch.setattr(environment, "_create", create)
    return fake


def test_what_is_installed_is_not_installed_again(install, venv):
    venv(OURS)
    assert install() == [[]]
    assert install("dev") == [["dev"]]
    assert install() == install("dev") == install() == []


def test_a_changed_description_is_installed_again_each_part_once(install, venv, tmp_path):
    venv(OURS)
    install("dev")
    (tmp_path / "setup.cfg").write_text("b")
    assert install() == [[]]
    assert install("dev") == [["dev"]]
    assert install() == install("dev") == []
    (tmp_path / "setup.cfg").write_text("a")
    assert install() == [[]], "what was installed long ago is not installed now"


def test_an_installation_that_failed_is_tried_again(install, venv, bootstrap, monkeypatch):
    venv(OURS)
    install()
    with monkeypatch.context() as broken, pytest.raises(SystemExit):
        broken.setattr(installing, "link", lambda *_: console.give_up("no network"))
        install("dev")
    assert install() == [[]]


@pytest.mark.parametrize("stamp", ["", "0123abcd\n", "[]", '{"extras": 3}', "\u20ac"])
def test_a_stamp_of_another_kind_is_none(install, venv, tmp_path, stamp):
    venv(OURS)
    (tmp_path / "venv" / ".qwen-edge").write_text(stamp)
    assert install() == [[]]


def test_another_pythons_environment_is_made_anew(install, venv, capsys):
    venv(OURS)
    install("dev")
    venv("3.9")
    assert install() == [[]]
    assert "venv cannot be used: it was made with Python 3.9\nmaking " in capsys.readouterr().out
    assert install("dev") == [["dev"]], "it went with the old one"


def test_an_environment_whose_python_is_gone_is_made_anew(install, venv, capsys, tmp_path):
    venv(OURS)
    install()
    (tmp_path / "venv" / "bin" / "python").unlink()
    (tmp_path / "venv" / "bin" / "python").symlink_to("/usr/bin/python-of-last-year")
    assert install() == [[]]
    assert "venv cannot be used: the Python it was made with is gone\nmaking " in capsys.readouterr().out


def test_a_folder_with_other_things_in_it_is_not_emptied(install, venv, capsys, tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "letters.txt").write_text("")
    assert "holds other things than a virtual environment" in gives_up(capsys, install)


COPIED = {
    "pip's usual first line": "#!{}/python3\n",
    "the form for long paths": "#!/bin/sh\n'''exec' \"{}/python3\" \"$0\" \"$@\"\n' '''\n",
}


@pytest.mark.parametrize("line", COPIED.values(), ids=COPIED)
@pytest.mark.parametrize("there", [True, False], ids=["the first is still there", "the first is gone"])
def test_a_copied_environment_is_made_anew_because_its_programs_run_the_first_one(
    install, venv, tmp_path, capsys, line, there
):
    venv(OURS)
    install("dev")
    pip, first = tmp_path / "venv" / "bin" / "pip", tmp_path / "home of somebody" / "bin"
    pip.write_text(line.format(tmp_path / "venv" / "bin"))
    assert install("dev") == [], "it is where it was made"
    if there:
        first.mkdir(parents=True)
    pip.write_text(line.format(first))
    assert install() == [[]]
    assert "venv cannot be used: it was copied from another place\nmaking " in capsys.readouterr().out


@pytest.fixture
def elsewhere(bootstrap, monkeypatch, tmp_path):
    """Runs the script for an environment outside the checkout; returns pip's commands and what it was given."""
    checkout, place = tmp_path / "checkout", tmp_path / "opt" / "venv"
    for name in ("qwen_edge/cli", "docs", "systemd", "build", "qwen_edge/__pycache__"):
        (checkout / name).mkdir(parents=True)
    (checkout / "qwen_edge/cli/__init__.py").write_text("one")
    (checkout / "qwen_edge/py.typed").write_text("")
    (checkout / "qwen_edge/__pycache__/old.pyc").write_text("")
    (checkout / "build/left.py").write_text("left behind")
    (checkout / "setup.cfg").write_text("[metadata]")
    (checkout / "pyproject.toml").write_text("")
    (checkout / "systemd/qwen-edge.service").write_text(f"ExecStart={tmp_path}/service/venv/bin/qwen-edge serve\n")
    monkeypatch.setattr(bootstrap, "ROOT", checkout)
    asked: list[tuple[str, ...]] = []
    given: set[str] = set()

    def pip(_python, *arguments, **_options):
        asked.append(arguments)
        if arguments[0] == "wheel":
            source = Path(arguments[-1].partition("[")[0])
            given.clear()
            given.update(str(file.relative_to(source)) for file in source.rglob("*") if file.is_file())
            (Path(arguments[2]) / "qwen_edge-1-py3-none-any.whl").write_text("")

    def make(folder, _version):
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin/python").write_text(f"#!/bin/sh\necho {OURS}\n")
        (folder / "bin/python").chmod(0o755)
        return folder / "bin/python"

    monkeypatch.setattr(installing, "_pip", pip)
    monkeypatch.setattr(environment, "make_venv", make)

    def run(*extras: str, venv: Path = place):
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", str(venv), *extras])
        bootstrap.main()
        return list(asked), set(given)

    run.checkout = checkout
    return run


def test_an_environment_elsewhere_gets_a_copy_built_from_clean_sources(elsewhere):
    (built, installed), given = elsewhere()
    assert built[:2] == ("wheel", "--wheel-dir")
    assert installed[:4] == ("install", "--no-index", "--no-deps", "--force-reinstall")
    assert "--editable" not in built + installed
    assert given == {"qwen_edge/cli/__init__.py", "qwen_edge/py.typed", "setup.cfg", "pyproject.toml"}
    assert not list(elsewhere.checkout.rglob("*.egg-info")), "the checkout is left as it is"


def test_the_same_command_upgrades_a_copy_when_the_sources_have_changed_and_keeps_its_parts(elsewhere, capsys):
    elsewhere("jetson")
    assert elsewhere()[0] == []
    assert "is up to date" in capsys.readouterr().out
    (elsewhere.checkout / "qwen_edge/cli/__init__.py").write_text("two")
    (built, _), _ = elsewhere()
    assert built[-1].endswith("[jetson]")


def test_what_root_installs_is_for_others_to_read_whatever_roots_umask(elsewhere, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = os.umask(0o077)
    try:
        elsewhere()
    finally:
        os.umask(before)
    assert (tmp_path / "opt/venv/bin").stat().st_mode & 0o055 == 0o055


def test_a_service_is_not_given_a_python_that_it_cannot_see(elsewhere, bootstrap, capsys, monkeypatch, tmp_path):
    service = tmp_path / "service/venv"
    monkeypatch.setattr(place, "_HOMES", (tmp_path / "home",))
    python = tmp_path / "home/me/.pyenv/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text("")
    monkeypatch.setattr(sys, "executable", str(python))
    said = gives_up(capsys, lambda: elsewhere(venv=service))
    assert f"{python} lies in {tmp_path / 'home'}, where the service cannot see it" in said
    assert f"sudo /usr/bin/python3 bootstrap.py {service}" in said
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert elsewhere(), "another environment may have it"


def test_a_service_is_not_put_into_a_folder_that_is_closed_to_it(elsewhere, bootstrap, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(place, "_HOMES", ())
    (tmp_path / "service").mkdir(mode=0o700)
    said = gives_up(capsys, lambda: elsewhere(venv=tmp_path / "service/venv"))
    assert "is closed to others, so to the service, too. Open it: sudo chmod a+rx " in said


def test_a_folder_of_somebody_elses_is_told_with_its_owner(elsewhere, bootstrap, capsys, monkeypatch, tmp_path):
    (tmp_path / "opt").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path / "opt")
    said = gives_up(capsys, elsewhere)
    assert f"You may not write to {tmp_path / 'opt'}, which belongs to {(tmp_path / 'opt').owner()}" in said
    assert "sudo chown -R" in said


def test_it_says_how_it_is_used(bootstrap, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bootstrap.py"])
    assert "VENV" in gives_up(capsys, bootstrap.main)


def test_it_runs_with_nothing_installed(tmp_path):
    """By the interpreter alone: no site-packages, no environment, and a folder that makes it stop early."""
    (tmp_path / "letters.txt").write_text("")
    command = [sys.executable, "-I", "-S", SCRIPT, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert done.returncode == 2
    assert done.stderr.startswith(f"bootstrap: {tmp_path} holds other things")


PIP = """#!/bin/sh
case "$*" in
*" pip "*)
    mkdir "$TMPDIR/pip-build"
    sleep 1000 &
    echo $! >"{told}"
    wait ;;
*) echo {version} ;;
esac
"""
STARTED = """
import importlib.util, pathlib, signal, sys
for one in (signal.SIGHUP, signal.SIGTERM):  # as in a terminal, whatever starts the tests
    signal.signal(one, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
spec = importlib.util.spec_from_file_location("bootstrap", "{script}")
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
bootstrap.ROOT = pathlib.Path("{root}")
sys.argv = ["bootstrap.py", "{venv}"]
bootstrap.run()
"""


@pytest.fixture
def interrupted(tmp_path):
    """Starts the script in a process of its own, waits until pip has started a compiler, and sends a signal. Returns
    the exit code, what was said, and the compiler."""
    (tmp_path / "root").mkdir()
    (tmp_path / "t").mkdir()
    told = tmp_path / "told"
    os.mkfifo(told)

    def run(number: int, venv: Path):
        python = venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        (venv / "pyvenv.cfg").touch()
        python.write_text(PIP.format(told=told, version=OURS))
        python.chmod(0o755)
        program = STARTED.format(script=SCRIPT, root=tmp_path / "root", venv=venv)
        environment = {**os.environ, "CMAKE_ARGS": "-DX=1", "TMPDIR": str(tmp_path / "t")}
        environment.pop("SUDO_USER", None)
        command = [sys.executable, "-c", program]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(command, **options) as process:
            compiler = psutil.Process(int(told.read_text()))
            process.send_signal(number)
            _, said = process.communicate()
        return process.returncode, said, compiler

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", ["root/venv", "opt/venv"], ids=["linked", "copied"])
def test_an_installation_that_is_interrupted_leaves_one_sentence_and_nothing_else(interrupted, tmp_path, number, place):
    code, said, compiler = interrupted(number, tmp_path / place)
    assert code == 128 + number
    assert said.split("\n") == ["", "bootstrap: Interrupted. The same command goes on from here.", ""]
    assert list((tmp_path / "t").iterdir()) == []
    psutil.wait_procs([compiler])
    assert not compiler.is_running() or compiler.status() == psutil.STATUS_ZOMBIE


def test_a_virtual_environment_whose_making_is_interrupted_says_no_word_of_its_own(
    bootstrap, monkeypatch, tmp_path, capfd
):
    """A stand-in for Python makes it, and starts a pip that ends for nobody."""
    python, told = tmp_path / "python", tmp_path / "told"
    os.mkfifo(told)
    python.write_text(
        f"#!/bin/sh\ntouch $TMPDIR/wheel\nsh -c 'trap \"\" INT; echo $$ >{told}; while :; do sleep 1; done'\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    pids: list[int] = []

    def interrupt():
        pids.append(int(told.read_text()))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        environment._create(tmp_path / "venv")
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=5)
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)
    assert list((tmp_path / "t").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_killed_installations_have_left_goes_with_the_next_one(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = [f"{processes.PREFIX}{name}" for name in ("left", "running", "young", "file", "link")] + ["pip-of-others"]
    left, running, young, file, link, other = (tmp_path / name for name in names)
    for folder in (left, running, young, other):
        (folder / "wheels").mkdir(parents=True)
    file.touch()
    link.symlink_to(other)
    for path in (left, running, file, other):
        os.utime(path, (0, 0))
    with processes.locked(running), processes.workshop() as mine:
        assert mine.is_dir()
        assert not left.exists()
        assert all(path.exists() for path in (running / "wheels", young / "wheels", file, other / "wheels", mine))
    assert not mine.exists()
