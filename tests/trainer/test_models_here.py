"""The models found on this machine: in folders and in both hubs' caches, whole or not; and what may be typed for them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from app import models
from app.roots import Roots
from app.text import Text
from tests.hub import caches
from tests.tiny import build_hollow_model, write_safetensors
from trainer import export_settings, models_here, prepare
from trainer.hub_caches import hugging_face_cache, id_of, is_id, model_scope_cache
from trainer.model_folder import check_model_folder, located
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings

NAME = "some-org/some.model-1.5B"
LAYOUTS = {
    "Hugging Face": "hf/hub/models--some-org--some.model-1.5B/snapshots/abc",
    "ModelScope, today": "ms/models/some-org--some.model-1.5B/snapshots/master",
    "ModelScope, before": "ms/models/some-org/some___model-1___5B",
    "ModelScope, below hub": "ms/hub/models/some-org/some___model-1___5B",
    "ModelScope, first": "ms/hub/some-org/some___model-1___5B",
    "ModelScope, first, dots": "ms/some-org/some.model-1.5B",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine: a working folder, and two caches beside it."""
    for name, value in caches(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def sharded(folder: Path, *present: str) -> Path:
    build_hollow_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}})
    )
    for name in present:
        write_safetensors(folder / name)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_in_a_cache_is_found_and_loaded_by_its_id_in_every_layout(place: Path, layout: str) -> None:
    folder = build_hollow_model(place / LAYOUTS[layout])
    assert [(one.name, one.missing) for one in models_here.find()] == [(NAME, ())]
    assert check_model_folder(NAME) == folder
    assert check_model_folder(models_here.find()[0].path) == folder
    settings = prepare.absolute(TrainSettings(model_name_or_path=NAME, dataset_dir="d", output_dir="o"))
    assert settings.model_name_or_path == str(folder)
    assert export_settings.parse({"model_name_or_path": NAME}).model_name_or_path == str(folder)


def test_everything_that_names_a_cached_model_may_be_typed(place: Path) -> None:
    snapshot = build_hollow_model(place / LAYOUTS["Hugging Face"])
    cache = snapshot.parent.parent
    for typed in (snapshot, cache, cache / "snapshots", hugging_face_cache(), place / "hf", NAME, f" {NAME} "):
        assert check_model_folder(typed) == snapshot, typed
        assert located(str(typed)) == str(snapshot)
    build_hollow_model(place / "hf/hub/models--other--model/snapshots/abc")
    with pytest.raises(Problem) as caught:
        check_model_folder(hugging_face_cache())
    assert caught.value.code == "model_several"
    assert f"other/model, {NAME}" in str(caught.value)


def test_a_folder_of_that_name_comes_before_the_cache(place: Path) -> None:
    build_hollow_model(place / LAYOUTS["Hugging Face"])
    mine = build_hollow_model(place / "work" / NAME)
    assert check_model_folder(NAME) == Path(NAME)
    assert located(NAME) == str(mine)


def test_an_id_that_is_not_here_offers_the_download(place: Path) -> None:
    with pytest.raises(Problem) as caught:
        check_model_folder("org/absent")
    assert caught.value.code == "model_not_here"
    for said in (caught.value.sentence("en"), caught.value.sentence("zh")):
        assert "tunedesk download org/absent" in said
    # A command that is started elsewhere must not take it for a folder here.
    assert located("org/absent") == "org/absent"


def test_a_snapshot_that_is_not_whole_gives_way_to_one_that_is(place: Path) -> None:
    cache = hugging_face_cache() / "models--a--b"
    whole = build_hollow_model(cache / "snapshots" / "old")
    sharded(cache / "snapshots" / "new", "model-1.safetensors")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("new")
    assert check_model_folder("a/b") == whole
    shutil.rmtree(whole)
    assert [one.missing for one in models_here.find()] == [("model-2.safetensors",)]
    with pytest.raises(Problem, match=r"model-2\.safetensors"):
        check_model_folder("a/b")


def test_a_snapshot_that_is_a_link_to_elsewhere_is_not_followed(place: Path) -> None:
    elsewhere = build_hollow_model(place / "elsewhere")
    snapshots = hugging_face_cache() / "models--a--b" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / "abc").symlink_to(elsewhere)
    with pytest.raises(Problem):
        check_model_folder("a/b")


def test_models_are_found_where_they_are_told_to_be_looked_for(place: Path) -> None:
    given = build_hollow_model(place / "given" / "one")
    build_hollow_model(place / "given" / "two")
    build_hollow_model(place / "work" / "here")
    build_hollow_model(place / "work" / "models" / "org" / "nested")
    (place / "work" / "models" / "no-model").mkdir()
    assert [one.name for one in models_here.find([given])] == ["one", "two", "here", "nested"]
    assert [one.name for one in models_here.find([given], lambda path: "given" not in path.parts)] == ["here", "nested"]


def test_size_parameters_kind_and_what_is_missing_are_told(place: Path) -> None:
    folder = sharded(place / "work" / "model", "model-1.safetensors", "model-2.safetensors")
    write_safetensors(folder / "consolidated.safetensors", 1000)
    found = models_here.find()[0]
    assert (found.parameters, found.model_type, found.chat, found.missing) == (32, "qwen2", False, ())
    assert found.size_bytes == sum((folder / f"model-{number}.safetensors").stat().st_size for number in (1, 2))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    os.truncate(folder / "model-2.safetensors", 30)
    (folder / "tokenizer.json").unlink()
    found = models_here.find()[0]
    assert (found.parameters, found.chat) == (None, True)
    assert set(found.missing) == {"model-2.safetensors", "tokenizer.json"}
    described = {language: models.described(found.name, found, Text(language)) for language in ("en", "zh")}
    assert described["en"].endswith(" · qwen2 · chat · incomplete, files missing: 2")
    assert described["zh"].endswith(" · qwen2 · 对话模型 · 不完整，缺 2 个文件")


def test_packed_weights_have_no_number_of_parameters(place: Path) -> None:
    folder = build_hollow_model(place / "work" / "packed")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "quantization_config": {"bits": 4}}))
    header = json.dumps({"w.qweight": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert models_here.find()[0].parameters is None


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"model_type": 3}', '{"model_type": null}', "[" * 5000, "\0"])
def test_junk_is_no_model_and_breaks_nothing(place: Path, junk: str) -> None:
    folder = build_hollow_model(place / "work" / "junk")
    (folder / "config.json").write_text(junk)
    assert models_here.find() == []
    (folder / "config.json").write_text('{"model_type": "x"}')
    (folder / "model.safetensors").write_text(junk)
    assert [one.missing for one in models_here.find()] == [("model.safetensors",)]


def test_what_lies_beside_models_neither_breaks_nor_holds_up_the_list(place: Path) -> None:
    odd = {
        name: build_hollow_model(place / "work" / name)
        for name in ("waits", "endless", "backwards", "my model 模型 😀")
    }
    os.mkfifo(odd["waits"] / "tokenizer_config.json")
    os.mkfifo(odd["waits"] / "chat_template.jinja")
    with (odd["endless"] / "config.json").open("wb") as file:
        file.truncate(2**40)
    header = json.dumps({"w": {"dtype": "F32", "shape": [-5], "data_offsets": [20, 0]}}).encode()
    (odd["backwards"] / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    os.mkdir(os.fsencode(place / "work") + b"/\xff")
    build_hollow_model(Path(os.fsdecode(os.fsencode(place / "work") + b"/\xff")))
    found = {one.name: one for one in models_here.find()}
    assert sorted(found) == ["backwards", "my model 模型 😀", "waits"]
    assert (found["waits"].chat, found["backwards"].missing) == (False, ("model.safetensors",))
    assert check_model_folder(odd["my model 模型 😀"]) == odd["my model 模型 😀"]
    with pytest.raises(Problem) as caught:
        check_model_folder(odd["endless"])
    assert caught.value.code == "model_config_broken"


def test_a_header_longer_than_safetensors_reads_is_not_read(place: Path) -> None:
    folder = build_hollow_model(place / "work" / "model")
    with (folder / "model.safetensors").open("wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**41)
    assert models_here.find()[0].missing == ("model.safetensors",)
    with pytest.raises(Problem, match="header"):
        check_model_folder(folder)


def test_a_hundred_models_are_listed_in_a_third_of_a_second(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        sharded(
            hugging_face_cache() / f"models--org--m{number}" / "snapshots" / "abc",
            "model-1.safetensors",
            "model-2.safetensors",
        )
    # Of the processor, and the best of three: what runs beside this says nothing about it. Each of them reads anew.
    times = []
    for _ in range(3):
        monkeypatch.setattr(models_here, "_known", models_here.Known())
        began = time.process_time()
        assert len(models_here.find()) == 100
        times.append(time.process_time() - began)
    assert min(times) < 0.3
    began = time.process_time()
    models_here.find()
    assert time.process_time() - began < max(times)


def test_the_page_takes_ids_only_from_caches_that_it_may_look_into(place: Path) -> None:
    snapshot = build_hollow_model(place / LAYOUTS["Hugging Face"])
    inside, outside = Roots((place / "work", place / "hf")), Roots((place / "work",))
    cache = snapshot.parent.parent
    settings = TrainSettings(model_name_or_path=NAME, dataset_dir="d", output_dir="o")
    assert NAME in inside
    inside.check_settings(settings)
    for typed in (NAME, str(snapshot), str(cache), str(cache / "snapshots"), str(place / "hf")):
        assert typed not in outside, typed
        with pytest.raises(Problems):
            outside.check_typed({"model_name_or_path": typed})
    with pytest.raises(Problems):
        outside.check_settings(settings)
    assert list(models.found("", inside)) == [NAME]
    assert models.found("", outside) == {}


def test_a_model_is_the_same_however_it_was_typed(place: Path) -> None:
    snapshot = build_hollow_model(place / LAYOUTS["Hugging Face"])
    cache = snapshot.parent.parent
    for typed in (NAME, str(cache), str(snapshot)):
        assert models.same(typed, str(cache)), typed
        assert models.name_of(typed, models.found("", Roots((place,)))) == NAME
    assert not models.same(NAME, "other/model")


@pytest.mark.parametrize(
    ("text", "right"),
    [("Qwen/Qwen2.5-0.5B-Instruct", True), ("a/b", True), ("a", False), ("a/b/c", False), ("../b", False), ("./b", False),
     ("a/..", False), ("a--b/c", False), ("/a/b", False), ("a/b c", False), ("a/\0", False), ("", False), ("~/b", False)],
)  # fmt: skip
def test_what_can_be_an_id(text: str, right: bool) -> None:
    assert is_id(text) == right


def test_caches_are_where_their_tools_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "MODELSCOPE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert (str(hugging_face_cache()), str(model_scope_cache())) == (
        "/home/me/.cache/huggingface/hub",
        "/home/me/.cache/modelscope",
    )
    monkeypatch.setenv("HF_HOME", "/hf")
    assert str(hugging_face_cache()) == "/hf/hub"
    monkeypatch.setenv("HF_HUB_CACHE", "/hub")
    monkeypatch.setenv("MODELSCOPE_CACHE", "/ms")
    assert (str(hugging_face_cache()), str(model_scope_cache())) == ("/hub", "/ms")
    assert id_of(Path("/ms/models/org/name___1")) == "org/name.1"
