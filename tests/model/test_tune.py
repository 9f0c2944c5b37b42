"""What the settings leave open is measured, remembered and used; what they say is kept."""

import json
import xml.etree.ElementTree as ET
from itertools import count

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from qwen_edge.cli.tune import command
from qwen_edge.cli.tune_plot import draw
from qwen_edge.config.paths import Place
from qwen_edge.core.errors import EngineError, UserError
from qwen_edge.core.progress import Stage
from qwen_edge.device.host.cpu import usable_cores
from qwen_edge.llama import resolve as settling
from qwen_edge.llama import tune as tuning
from qwen_edge.llama.growing_cells import GrowingCells
from qwen_edge.llama.model import Model
from qwen_edge.llama.resolve import kv_bytes, resolve
from qwen_edge.llama.tune import Effort, Speed, Try, measure, setting, tune
from qwen_edge.protocol.messages import Load, Tuning
from tests.served import ServedModel

pytestmark = pytest.mark.model


def asked(model, **changes) -> Load:
    load = Load(model.path, 4096, 0, 0, 0, "auto", "auto", 5.0, parallel=4)
    return replace(load, model=str(model.path), **changes)


@pytest.fixture(scope="module")
def model(tiny_model):
    with Model(tiny_model) as model:
        yield model


@pytest.fixture
def cores(monkeypatch):
    for module in (tuning, settling):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(tuning, "fastest_weights", lambda *_: 32)
    monkeypatch.setattr(tuning, "fastest_streams", lambda *_: 0)


def quickest(monkeypatch, best: Tuning, refused: tuple[Tuning, ...] = ()) -> list[Tuning]:
    """Let a setting be the quicker the more it has in common with the best one; returns what is tried."""
    tried = []

    def pretend(_model, load, _effort, *_):
        it = Tuning(load.threads, load.flash_attention, load.batch)
        tried.append(it)
        if it in refused:
            raise EngineError("no such thing here")
        alike = sum((it.threads == best.threads, it.flash_attention == best.flash_attention, it.batch == best.batch))
        return Try(it, (Speed(0, 100.0 + 20 * alike, 10.0 + 2 * alike),))

    monkeypatch.setattr(tuning, "measure", pretend)
    return tried


@pytest.mark.parametrize("best", [Tuning(3, "on", 256), Tuning(2, "off", 64), Tuning(4, "off", 128)])
def test_the_quickest_of_all_settings_is_found(model, cores, monkeypatch, best):
    quickest(monkeypatch, best)
    crowd = 0 if best.flash_attention == "off" else None  # flash attention serves crowds as it is
    assert tune(model, asked(model), Effort()) == replace(best, plain_from=32, flash_streams=crowd)


def test_what_the_settings_say_is_not_tried_otherwise(model, cores, monkeypatch):
    tried = quickest(monkeypatch, Tuning(3, "on", 256))
    assert tune(model, asked(model, threads=2, flash_attention="off", batch=32), Effort()) == Tuning(plain_from=32)
    assert tried == [Tuning(2, "off", 32)]
    tried.clear()
    found = tune(model, asked(model, kv_type="q8_0"), Effort())
    assert all(one.flash_attention == "on" for one in tried), "a cache with quantized values needs it"
    assert found.flash_attention == "auto", "another type of cache may be quicker without it"
    tried.clear()
    tune(model, asked(model, kv_type="q8_0_keys"), Effort())
    assert {one.flash_attention for one in tried} == {"on", "off"}


def test_what_cannot_be_run_here_is_passed_over(model, cores, monkeypatch):
    quickest(monkeypatch, Tuning(4, "on", 128), refused=(Tuning(4, "on", 128),))
    assert tune(model, asked(model), Effort()) == Tuning(4, "off", 128, plain_from=32, flash_streams=0)


def test_a_first_start_on_a_slow_device_does_not_take_for_ever(model, cores, monkeypatch):
    tried = quickest(monkeypatch, Tuning(2, "on", 128))
    clock = count(0, 11)
    tune(model, asked(model), Effort.brief(), clock=lambda: float(next(clock)))
    assert len(tried) == 1


def test_a_setting_that_was_quicker_by_chance_is_not_taken(model, cores, monkeypatch):
    speeds = {Tuning(4, "off", 128): [5.0, 10.0], Tuning(4, "on", 128): [8.0, 8.0]}  # something else ran at first

    def hindered(_model, load, _effort, *_):
        it = Tuning(load.threads, load.flash_attention, load.batch)
        return Try(it, (Speed(0, 100.0, speeds[it].pop(0)),))

    monkeypatch.setattr(tuning, "measure", hindered)
    assert tune(model, asked(model), Effort.brief()) == Tuning(flash_attention="off", plain_from=32, flash_streams=0)


def test_flash_attention_is_for_short_conversations_where_it_is_quicker_only_at_first(model, cores, monkeypatch):
    prompts = {("off", 0): 100.0, ("on", 0): 110.0, ("off", 512): 100.0, ("on", 512): 100.0}
    answers = {("off", 0): 10.0, ("on", 0): 9.8, ("off", 512): 10.0, ("on", 512): 8.0}

    def pretend(_model, load, effort, *_):
        it = Tuning(load.threads, load.flash_attention, load.batch)
        keys = [(at, (load.flash_attention, 0 if at < 512 else 512)) for at in effort.depths]
        return Try(it, tuple(Speed(at, prompts[key], answers[key]) for at, key in keys))

    monkeypatch.setattr(tuning, "measure", pretend)
    for effort in (Effort.brief(), Effort()):
        found = tune(model, asked(model), effort)
        assert (found.flash_attention, found.flash_cells) == ("small", 512)
    prompts["on", 0] = 101.0
    assert tune(model, asked(model), Effort.brief()).flash_attention == "off", "the first word comes no sooner"
    prompts["on", 0], answers["on", 0] = 110.0, 9.0
    assert tune(model, asked(model), Effort.brief()).flash_attention == "off", "the last word comes later"
    answers["on", 512] = 12.0
    assert tune(model, asked(model), Effort.brief()).flash_attention == "on"


@pytest.mark.parametrize(("until", "cells"), [(0, 0), (200, 0), (512, 512), (600, 1024), (1500, 2048)])
def test_each_size_of_context_has_the_attention_that_is_faster_at_its_depths(model, cores, monkeypatch, until, cells):
    def pretend(_model, load, effort, *_):
        it = Tuning(load.threads, load.flash_attention, load.batch)
        answers = {"off": lambda at: 10.0, "on": lambda at: 12.0 if at < until else 6.0}[load.flash_attention]
        return Try(it, tuple(Speed(at, 100.0, answers(at)) for at in effort.depths))

    monkeypatch.setattr(tuning, "measure", pretend)
    found = tune(model, asked(model), Effort())
    assert (found.flash_attention, found.flash_cells) == ("small" if cells else "off", cells)


def test_contexts_have_flash_attention_up_to_the_size_that_was_measured(model):
    load = resolve(model, asked(model, tuning=Tuning(flash_attention="small", flash_cells=1024), batch=64))
    for room, skips in ((512, True), (1024, True), (1280, False)):
        cells = GrowingCells(model, load, room=room)
        assert cells.skips == skips, room
        cells.close()


def test_a_brief_measurement_says_nothing_about_what_it_does_not_measure(model, cores, monkeypatch):
    quickest(monkeypatch, Tuning(2, "on", 512))
    assert tune(model, asked(model), Effort.brief()) == Tuning(flash_attention="on", plain_from=32)
    resolved = resolve(model, asked(model, tuning=Tuning(flash_attention="on")))
    assert (resolved.threads, resolved.flash_attention, resolved.batch) == (4, "on", 128)


@pytest.mark.parametrize("attention", ["on", "off"])
def test_every_depth_is_measured_with_so_many_tokens_in_the_cache(model, attention, monkeypatch):
    seen = []
    real = tuning.FixedCells.decode
    monkeypatch.setattr(tuning.FixedCells, "decode", lambda self, slices: seen.append(slices) or real(self, slices))
    load = resolve(model, asked(model, threads=2, batch=64, flash_attention=attention))
    result = measure(model, load, Effort(depths=(0, 512, 2048), prompt=64, answer=3))
    assert [speed.depth for speed in result.speeds] == [0, 512, 2048]
    assert all(speed.prompt > 0 and speed.answer > 0 for speed in result.speeds)
    assert result.tuning == Tuning(2, attention, 64)


def test_depths_that_the_context_does_not_hold_are_left_out(model):
    load = resolve(model, asked(model, context=700, threads=2))
    result = measure(model, load, Effort(prompt=32, answer=2))
    assert [speed.depth for speed in result.speeds] == [0, 128, 256, 512]


def test_the_cache_is_as_exact_as_memory_allows(model):
    spare = 256 << 20
    for kv_type in ("f16", "q8_0_keys", "q8_0"):
        enough = kv_bytes(model, kv_type, 4096) + spare
        assert resolve(model, asked(model), enough).kv_type == kv_type
    assert resolve(model, asked(model), enough - 1).kv_type == "q4_0"
    assert resolve(model, asked(model, kv_type="f16"), 0).kv_type == "f16"
    assert resolve(model, asked(model), enough).flash_attention == "on"


@pytest.mark.parametrize("attention", ["off", "small"])
def test_without_flash_attention_only_the_keys_are_quantized_where_memory_is_short(model, attention):
    load = asked(model, flash_attention=attention)
    enough = kv_bytes(model, "f16", 4096) + (256 << 20)
    found = [resolve(model, load, room) for room in (enough, enough - 1, 0)]
    assert [one.kv_type for one in found] == ["f16", "q8_0_keys", "q8_0_keys"]
    assert {one.flash_attention for one in found} == {attention}


def test_keys_of_another_type_than_values_are_not_chosen_on_a_gpu(model, monkeypatch):
    enough = kv_bytes(model, "f16", 4096) + (256 << 20)
    monkeypatch.setattr(settling, "on_gpu", lambda _load: True)
    assert resolve(model, asked(model), enough - 1).kv_type == "q8_0"
    assert resolve(model, asked(model, kv_type="q8_0_keys"), enough).kv_type == "q8_0_keys"


def test_quantized_keys_have_the_kind_of_attention_that_was_measured(model):
    keys = asked(model, kv_type="q8_0_keys")
    assert resolve(model, keys).flash_attention == "off"
    assert resolve(model, replace(keys, tuning=Tuning(flash_attention="small"))).flash_attention == "small"


def test_what_was_measured_decides_what_is_open(model, cores):
    known = Tuning(3, "on", 256)
    resolved = resolve(model, asked(model, tuning=known))
    assert (resolved.threads, resolved.flash_attention, resolved.batch) == (3, "on", 256)
    resolved = resolve(model, asked(model, tuning=known, threads=1, flash_attention="off", batch=32))
    assert (resolved.threads, resolved.flash_attention, resolved.batch) == (1, "off", 32)
    resolved = resolve(model, asked(model, tuning=Tuning(64, "off", 16), parallel=32))
    assert (resolved.threads, resolved.flash_attention, resolved.batch) == (4, "off", 32)


def test_a_first_start_measures_once_and_later_ones_use_it(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ServedModel(tiny_model) as served:
        assert "threads" in served.line
    (known,) = json.loads((tmp_path / "qwen-edge/tuning.json").read_text()).values()
    assert any("measured for the first start" in line for line in served.log)
    assert known["flash_attention"] in ("on", "off", "small")
    with ServedModel(tiny_model) as served:
        assert served.get("/health")[0] == 200
    assert not any("measured" in line for line in served.log)


def test_a_first_start_measures_nothing_where_that_is_not_wanted(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ServedModel(tiny_model, settings="engine: {calibrate: false}") as served:
        assert f"{usable_cores()} threads" in served.line
    assert not (tmp_path / "qwen-edge").exists()


def test_the_command_shows_every_try_and_keeps_the_best(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(command, ["--model", str(tiny_model), "--brief"], catch_exceptions=False)
    assert "Best: " in result.output
    assert "at 128" in result.output
    tries = json.loads(CliRunner().invoke(command, ["--model", str(tiny_model), "--brief", "--json"]).stdout)
    assert {"tuning", "speeds"} == set(tries[0])
    (known,) = json.loads((tmp_path / "qwen-edge/tuning.json").read_text()).values()
    assert known["flash_attention"] in [*(one["tuning"]["flash_attention"] for one in tries), "small"]


def test_where_a_service_is_installed_it_is_measured_for_and_kept_for_it(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    state = tmp_path / "state"
    place = Place(tmp_path / "qwen-edge.yaml", state, tiny_model.parent, True)
    place.settings.write_text("engine: {threads: 1, context: 512}\n")
    monkeypatch.setattr("qwen_edge.cli.tune.find_place", lambda file: place)
    result = CliRunner().invoke(command, ["--brief"], catch_exceptions=False)
    said = f"Measuring for the service: settings {place.settings}, state folder {state}, model {tiny_model}"
    assert result.output.splitlines()[0] == said
    assert "Best: 1 thread, " in result.output
    assert len(json.loads((state / "tuning.json").read_text())) == 1
    assert not (tmp_path / "mine").exists()


def test_who_may_not_keep_the_result_is_told_before_a_minute_is_spent(tiny_model, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root
    result = CliRunner().invoke(command, ["--model", str(tiny_model), "--brief"])
    assert isinstance(result.exception, UserError)
    assert "You may not write to /proc/nowhere/qwen-edge." in str(result.exception)


def test_the_stage_knows_how_many_measurements_there_are_and_comes_to_its_end(model, cores):
    stage, told = Stage(), []
    stage.changed = lambda stage: told.append((stage.done, stage.doing))
    effort = Effort(depths=(0, 128), prompt=32, answer=2, batches=(64, 128))
    tune(model, asked(model), effort, stage=stage)
    settings = len({doing for _, doing in told if "attention" in doing})
    assert settings == 5, "4 threads; 3, 2; the other attention; another batch"
    assert stage.done == stage.total >= 2 * settings
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_setting_that_cannot_be_run_counts_as_measured(model, cores, monkeypatch):
    quickest(monkeypatch, Tuning(4, "on", 128), refused=(Tuning(4, "on", 128),))
    stage = Stage()
    tune(model, asked(model), Effort(), stage=stage)
    assert stage.done == stage.total > 0


def test_the_plot_has_a_line_for_each_setting_and_marks_the_chosen_one(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plot = tmp_path / "speed.svg"
    result = CliRunner().invoke(
        command, ["--model", str(tiny_model), "--brief", "--plot", str(plot)], catch_exceptions=False
    )
    texts = ["".join(text.itertext()) for text in ET.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert f"Speed of {tiny_model.name} on this device" in texts
    assert sum("attention" in text for text in texts) == 4, "two settings in each panel"
    assert sum("(chosen" in text for text in texts) in (2, 4)
    assert "measuring: done in " in result.output


def test_the_plot_marks_both_settings_where_each_is_for_some_contexts():
    tries = [Try(Tuning(2, one, 128), (Speed(0, 50.0, 5.0), Speed(512, 40.0, 4.0))) for one in ("off", "on")]
    drawing = draw([*tries, Try(Tuning(1, "off", 128), tries[0].speeds)], Tuning(2, "small", 128, 1024), setting, "m")
    assert "2 threads, plain attention, batches of 128 (chosen beyond 1,024 tokens)" in drawing
    assert "2 threads, flash attention, batches of 128 (chosen up to 1,024 tokens)" in drawing
    assert "1 thread, plain attention, batches of 128<" in drawing
    drawing = draw(tries, Tuning(2, "off", 128), setting, "m")
    assert drawing.count("(chosen)") == 2


@pytest.mark.parametrize("file", ["no/such/folder/x.svg", "."])
def test_a_plot_that_cannot_be_written_is_told_before_anything_is_measured(tiny_model, tmp_path, monkeypatch, file):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(command, ["--model", str(tiny_model), "--plot", str(tmp_path / file)])
    assert result.exit_code == 2
    assert not (tmp_path / "qwen-edge").exists()


def test_the_command_says_from_how_many_requests_on_flash_attention_is_faster(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = Tuning(2, "off", 64, plain_from=24, flash_streams=12)

    def pretend(model, load, _effort, tried, **_):
        tried(Try(Tuning(2, "off", 64), (Speed(0, 100.0, 10.0),)))
        return found

    monkeypatch.setattr("qwen_edge.llama.tune.tune", pretend)
    result = CliRunner().invoke(command, ["--model", str(tiny_model)], catch_exceptions=False)
    assert "Best: 2 threads, flash attention off (on for 12 requests at once or more), batches of 64" in result.output
    (kept,) = json.loads((tmp_path / "qwen-edge/tuning.json").read_text()).values()
    assert kept["flash_streams"] == 12
