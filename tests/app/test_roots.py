"""Where the page may read and write: the folders it was started with, symbolic links resolved."""

import json
import os
from pathlib import Path

import pytest

from app import models, saved_settings
from app.arguments import page_parser
from app.roots import EXPORT_PATHS, PATHS, Roots, temporary_folder
from trainer import export_settings, models_here
from trainer.dataset_files import find_source, list_datasets
from trainer.model_folder import resolve
from trainer.prepare import absolute
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, label

HERE = {"en": "Model path", "zh": "模型路径"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and one beside it that is not the page's."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("x")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "work" / "loop").symlink_to(tmp_path / "work" / "loop")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "MODELSCOPE_CACHE", "TUNEDESK_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "work"


@pytest.mark.parametrize("path", [".", "sub", "sub/not/there/yet", "./sub/../sub", "new name ; $(x) 😀"])
def test_what_lies_inside_is_allowed_whether_it_exists_or_not(place: Path, path: str) -> None:
    assert Roots((place,)).check(path, HERE) == Path(path).absolute()


@pytest.mark.parametrize(
    "path", ["..", "../outside", "/etc/passwd", "/", "link", "link/file", "sub/../../outside", "~", "~root", "~nobody-here/x",
             "a\0b", "\0", "\ud800", "", " ", "a" * 9000 + "/../../../../../../etc", "../work-er"]
)  # fmt: skip
def test_what_leads_outside_is_refused_by_the_flags_name(place: Path, path: str) -> None:
    with pytest.raises(Problem) as caught:
        Roots((place,)).check(path, HERE)
    for language, name in HERE.items():
        sentence = caught.value.sentence(language)  # type: ignore[arg-type]
        assert "--allow-path" in sentence
        assert name in sentence


def test_a_link_in_a_folder_that_leads_outside_is_named(place: Path) -> None:
    (place / "sub" / "own").symlink_to(place)
    assert Roots((place,)).check("sub", HERE) == place / "sub"
    (place / "sub" / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(Problem, match=r"config\.json"):
        Roots((place,)).check("sub", HERE)


def test_the_models_own_links_are_followed_for_it_was_named_at_the_start(place: Path) -> None:
    (place / "sub" / "config.json").write_text("{}")
    (place / "sub" / "model.safetensors").symlink_to(place.parent / "outside" / "file")
    with pytest.raises(Problem, match=r"model\.safetensors"):
        Roots((place,)).check("sub", HERE)
    Roots.of(page_parser().parse_args(["--model", "sub"])).check("sub", HERE)


def test_the_refusal_does_not_tell_what_exists(place: Path) -> None:
    said = []
    for path in ("../outside/file", "../outside/nope"):
        with pytest.raises(Problem) as caught:
            Roots((place,)).check(path, HERE)
        said.append(str(caught.value).replace(path, ""))
    assert said[0] == said[1]


def test_a_root_that_is_itself_a_link_holds_what_it_leads_to(place: Path) -> None:
    arguments = page_parser().parse_args(["--allow-path", "link"])
    assert "../outside/file" in Roots.of(arguments)


def test_the_roots_are_those_that_a_page_is_started_with(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [
        "--model",
        "/m/models/one",
        "--data-dir",
        "/d",
        "--runs-dir",
        "/r",
        "--allow-path",
        "/a",
        "--allow-path",
        "/b",
    ]
    monkeypatch.setenv("HF_HOME", "/cache/hf")
    monkeypatch.setenv("MODELSCOPE_CACHE", "/cache/ms")
    roots = Roots.of(page_parser().parse_args(flags))
    for path in (
        "/m/models/one",
        "/m/models/two",
        "/d/x",
        "/r/x",
        "/a",
        "/b/x",
        "/cache/hf/hub/models--a--b",
        "/cache/ms/x",
        ".",
    ):
        assert path in roots, path
    for path in ("/m", "/cache/hf/token", "/", "..", "/etc"):
        assert path not in roots, path


def test_a_page_started_in_the_root_folder_is_not_free_to_go_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    roots = Roots.of(page_parser().parse_args(["--model", "/model"]))
    assert "/model/x" in roots
    assert "/etc/passwd" not in roots
    assert "/etc/passwd" in Roots.of(page_parser().parse_args(["--allow-path", "/"]))


def test_every_setting_that_names_a_path_is_checked() -> None:
    """Those that are made absolute are the paths; a new one is to be listed."""
    plain = TrainSettings.model_construct(**dict.fromkeys(TrainSettings.model_fields, "x"))
    assert {key for key in TrainSettings.model_fields if getattr(absolute(plain), key) != "x"} == set(PATHS)
    found = export_settings.parse({"model_name_or_path": "x", "adapter_name_or_path": "x", "export_dir": "x"})
    fields = type(found).model_fields
    assert {key for key in fields if os.path.isabs(str(getattr(found, key)))} == set(EXPORT_PATHS)


def test_all_paths_that_lead_outside_are_told_at_once(place: Path) -> None:
    settings = TrainSettings(model_name_or_path="link", dataset_dir="sub", output_dir="/etc", resume_from_checkpoint="latest",
                             deepspeed="2", adapter_name_or_path="../outside")  # fmt: skip
    with pytest.raises(Problems) as caught:
        Roots((place,)).check_settings(settings)
    labels = [problem.values["label"] for problem in caught.value.problems]
    assert labels == [label("model_name_or_path"), label("adapter_name_or_path"), label("output_dir")]


def test_a_forms_paths_are_checked_whatever_else_is_wrong_with_it(place: Path) -> None:
    """The output folder is a name there; what is no text is for the others to say."""
    values = {"model_name_or_path": "../outside", "dataset_dir": " link ", "adapter_name_or_path": "", "output_dir": "",
              "learning_rate": "x", "deepspeed": ["/etc"]}  # fmt: skip
    with pytest.raises(Problems) as caught:
        Roots((place,)).check_typed(values)
    labels = [problem.values["label"] for problem in caught.value.problems]
    assert labels == [label("model_name_or_path"), label("dataset_dir")]
    Roots((place,)).check_typed(values | {"model_name_or_path": "sub", "dataset_dir": "./sub/x"})


def test_a_hub_cache_leads_to_no_snapshot_elsewhere(place: Path) -> None:
    (place / "models--a--b" / "refs").mkdir(parents=True)
    (place / "models--a--b" / "snapshots").mkdir()
    (place.parent / "outside" / "config.json").write_text("{}")
    for way in ("../../../outside", str(place.parent / "outside"), "x/../../../../outside", "..", ""):
        (place / "models--a--b" / "refs" / "main").write_text(way)
        assert resolve(place / "models--a--b") == place / "models--a--b", way


def test_the_list_of_models_looks_into_no_other_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(folder: Path) -> Path:
        seen.append(os.path.realpath(folder))
        return folder

    monkeypatch.setattr(models_here, "resolve", look)
    (place / "models" / "inside").mkdir(parents=True)
    (place / "models" / "link").symlink_to(place.parent / "outside")
    for model in ("sub", "..", "../outside", "link", "/etc/x", "", "~root", "\0"):
        models.found(model, Roots((place,)))
    assert str((place / "models" / "inside").resolve()) in seen
    assert all(path.startswith(str(place.resolve())) for path in seen), seen


@pytest.mark.parametrize("file_name", ["../../etc/passwd.json", "/etc/x.json", "../outside/secret.json", "linked.json"])
def test_dataset_info_leads_nowhere_else(place: Path, file_name: str) -> None:
    (place.parent / "outside" / "secret.json").write_text('[{"instruction": "a", "output": "b"}]')
    data = place / "sub"
    (data / "linked.json").symlink_to(place.parent / "outside" / "secret.json")
    (data / "dataset_info.json").write_text(json.dumps({"x": {"file_name": file_name}}))
    with pytest.raises(Problem) as caught:
        find_source(data, "x")
    assert caught.value.code == "dataset_outside"


def test_a_dataset_info_that_is_a_link_to_elsewhere_is_not_read(place: Path) -> None:
    (place / "sub" / "dataset_info.json").symlink_to(place.parent / "outside" / "file")
    with pytest.raises(Problem) as caught:
        list_datasets(place / "sub")
    assert caught.value.code == "dataset_outside"


def test_settings_are_read_and_written_in_their_own_folder_only(place: Path) -> None:
    folder = saved_settings.folder(place)
    folder.mkdir()
    (folder / "linked.yaml").symlink_to(place.parent / "outside" / "file")
    (folder / "dangling.yaml").symlink_to(place.parent / "outside" / "new")
    for name in ("linked", "dangling.yaml", "../x", "/etc/x", "..", "a/b", "a\\b", ".x", "a\0b", "\ud800x"):
        for use in (saved_settings.load, lambda runs, name: saved_settings.save(runs, name, TrainSettings(), {})):
            with pytest.raises(Problem):
                use(place, name)
    assert sorted(path.name for path in (place.parent / "outside").iterdir()) == ["file"]


def test_a_settings_folder_that_is_a_link_to_elsewhere_is_not_used(place: Path) -> None:
    saved_settings.folder(place).symlink_to(place.parent / "outside")
    with pytest.raises(Problem):
        saved_settings.save(place, "x", TrainSettings(), {})
    assert not (place.parent / "outside" / "x.yaml").exists()


def test_a_models_own_code_needs_a_page_that_was_started_to_trust_it(place: Path) -> None:
    settings = TrainSettings(model_name_or_path="sub", dataset_dir="sub", output_dir="sub", trust_remote_code=True)
    refused = Roots.of(page_parser().parse_args(["--model", "sub"]))
    with pytest.raises(Problems) as caught:
        refused.check_settings(settings)
    assert "--trust-remote-code" in str(caught.value)
    Roots.of(page_parser().parse_args(["--model", "sub", "--trust-remote-code"])).check_settings(settings)


def test_temporary_files_go_to_no_folder_that_another_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.roots.tempfile.tempdir", str(tmp_path))
    usual = tmp_path / f"tunedesk-{os.getuid()}"
    assert temporary_folder() == str(usual) == temporary_folder()
    assert usual.stat().st_mode & 0o077 == 0
    usual.chmod(0o777)  # as of somebody who waits for it
    assert temporary_folder() != str(usual)
    usual.rmdir()
    for make in (
        lambda: usual.symlink_to(tmp_path),
        lambda: usual.write_text("x"),
        lambda: usual.symlink_to("nowhere"),
    ):
        make()
        found = Path(temporary_folder())
        assert found != usual
        assert found.is_dir()
        usual.unlink()
