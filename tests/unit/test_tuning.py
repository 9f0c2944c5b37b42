"""What was measured is remembered for this machine and this model, and for nothing else."""

from qwen_edge.messages import Tuning
from qwen_edge.tuning import keep, recall

QUICK = Tuning(threads=3, flash_attention="on", batch=256)


def model(folder, content=b"weights", name="m.gguf"):
    file = folder / name
    file.write_bytes(content)
    return file


def test_what_is_kept_is_recalled(tmp_path):
    assert recall(model(tmp_path), tmp_path / "state") is None
    keep(model(tmp_path), QUICK, tmp_path / "state")
    assert recall(model(tmp_path), tmp_path / "state") == QUICK


def test_another_model_another_machine_and_another_build_are_measured_anew(tmp_path, monkeypatch):
    keep(model(tmp_path), QUICK, tmp_path)
    assert recall(model(tmp_path, name="other.gguf"), tmp_path) is None
    assert recall(model(tmp_path, b"other weights"), tmp_path) is None
    file = model(tmp_path)
    assert recall(file, tmp_path) == QUICK
    for name, value in (("usable_cores", 99), ("cpu_name", "another"), ("version", "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(f"qwen_edge.tuning.{name}", lambda *_, value=value: value)
            assert recall(file, tmp_path) is None


def test_measuring_again_replaces_what_was_found_and_leaves_the_rest(tmp_path):
    one, other = model(tmp_path), model(tmp_path, name="other.gguf")
    keep(one, QUICK, tmp_path)
    keep(other, QUICK, tmp_path)
    keep(one, Tuning(1, "off", 64), tmp_path)
    assert recall(one, tmp_path) == Tuning(1, "off", 64)
    assert recall(other, tmp_path) == QUICK


def test_a_damaged_file_is_a_file_that_is_not_there_and_is_told(tmp_path, caplog):
    keep(model(tmp_path), QUICK, tmp_path)
    (tmp_path / "tuning.json").write_text('{"half of')
    assert recall(model(tmp_path), tmp_path) is None
    assert "tuning.json cannot be read" in caplog.text
    keep(model(tmp_path), QUICK, tmp_path)
    assert recall(model(tmp_path), tmp_path) == QUICK


def test_where_nothing_can_be_written_the_log_says_so(tmp_path, caplog):
    (tmp_path / "file").touch()
    keep(model(tmp_path), QUICK, tmp_path / "file")
    assert "cannot be kept" in caplog.text
    (tmp_path / "state" / "tuning.json").mkdir(parents=True)
    keep(model(tmp_path), QUICK, tmp_path / "state")
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["tuning.json"]
