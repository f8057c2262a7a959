"""Exports: what comes out is the trained model, in the plain way and complete, or nothing is left of it."""

import json
import os
import shutil
import signal
import stat
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_hollow_adapter, build_hollow_model, edit_json
from trainer import export_plan, export_terminal, run_folder
from trainer.events import EventLog, read_events
from trainer.export_plan import Plan, check, claim, partial, publish
from trainer.export_settings import label, parse, to_flags
from trainer.export_terminal import run_export
from trainer.problems import LANGUAGES, SENTENCES, Problem, Problems

pytestmark = pytest.mark.slow


def hollow_tensors(file: Path, shapes: dict[str, list[int]], dtype: str = "F32", fill: int = 0) -> None:
    """A safetensors file of these tensors, every byte `fill`; made without torch."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = {"F32": 4, "BF16": 2}[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes([fill]) * end)


@pytest.fixture
def hollow(tmp_path: Path) -> Path:
    """base and adapter, which nobody can load and whose headers fit."""
    base, adapter = build_hollow_model(tmp_path / "base"), build_hollow_adapter(tmp_path / "adapter")
    layer = "layers.0.q_proj"
    hollow_tensors(base / "model.safetensors", {f"{layer}.weight": [8, 4], "norm.weight": [4]}, "BF16")
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    lora = {f"base_model.model.{layer}.lora_A.weight": [2, 4], f"base_model.model.{layer}.lora_B.weight": [8, 2]}
    hollow_tensors(adapter / "adapter_model.safetensors", lora)
    return tmp_path


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command takes over what belongs to its process: signals and the environment."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def planned(folder: Path, **values: Any) -> Plan:
    given = {
        "model_name_or_path": folder / "base",
        "adapter_name_or_path": folder / "adapter",
        "export_dir": folder / "out",
    }
    return check(parse({key: str(value) for key, value in (given | values).items() if value is not None}))


def refused(folder: Path, code: str, **values: Any) -> Problem:
    """The problem `code` that these settings meet; nothing has been written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(Problem) as caught:
        planned(folder, **values)
    assert caught.value.code == code, caught.value
    assert sorted(folder.rglob("*")) == before
    for language in LANGUAGES:
        text = SENTENCES[code][LANGUAGES.index(language)]
        assert {name for _, name, _, _ in string.Formatter().parse(text) if name} <= caught.value.values.keys()
    return caught.value


# ---- before anything is loaded ----


def test_settings_come_back_from_their_flags() -> None:
    chosen = parse({"model_name_or_path": "/m", "export_dir": "/o", "export_size": "0.5", "infer_dtype": "float16",
                    "adapter_name_or_path": "-a"})  # fmt: skip
    words = to_flags(chosen)
    assert parse(dict(zip([word[2:] for word in words[::2]], words[1::2], strict=True))) == chosen
    assert chosen.adapter_name_or_path == str(Path.cwd() / "-a")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"export_dirr": "x"}, "export_dir"),
        ({"export_size": "big"}, "big"),
        ({"export_size": 0}, "above 0"),
        ({"export_device": "cuda"}, "cpu, auto"),
        ({"infer_dtype": "int8"}, "bfloat16"),
        ({"template": "nope"}, "chatml"),
        ({"export_legacy_format": True}, "only safetensors"),
        ({"quantization_bit": 4}, "quantization_bit"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises((Problem, Problems), match=words):
        parse(values)


def test_what_llama_factory_writes_is_taken() -> None:
    file = {"model_name_or_path": "m", "adapter_name_or_path": "a", "template": "qwen", "finetuning_type": "lora",
            "export_dir": "o", "export_size": 5, "export_device": "cpu", "export_legacy_format": False}  # fmt: skip
    assert parse(file).export_size == 5.0


def test_the_plan_says_what_will_be_read_and_written(hollow: Path) -> None:
    plan = planned(hollow)
    assert (plan.model, plan.adapter, plan.target) == (hollow / "base", hollow / "adapter", hollow / "out")
    assert (plan.dtype, plan.load_dtype, plan.weight_bytes) == ("bfloat16", "bfloat16", 72)
    wide = planned(hollow, infer_dtype="float32")
    assert (wide.dtype, wide.load_dtype, wide.weight_bytes) == ("float32", "float32", 144)
    assert planned(hollow, infer_dtype="float16").load_dtype == "float32", "neither holds the other's numbers"


def test_a_target_that_holds_something_is_never_touched(hollow: Path) -> None:
    (hollow / "out").mkdir()
    assert planned(hollow).target == hollow / "out", "an empty folder is taken"
    (hollow / "out" / "mine.txt").write_text("mine")
    refused(hollow, "export_exists")
    refused(hollow, "export_exists", export_dir=hollow / "out" / "mine.txt")


@pytest.mark.parametrize("inside", ["base", "base/new", "adapter/merged", "run/checkpoint-5/merged", "run/merged"])
def test_sources_are_not_written_into(hollow: Path, inside: str) -> None:
    shutil.copytree(hollow / "adapter", hollow / "run" / "checkpoint-5")
    (hollow / "run" / "config.yaml").write_text("{}")
    adapter = hollow / ("run/checkpoint-5" if "run" in inside else "adapter")
    refused(hollow, "export_inside_source", export_dir=hollow / inside, adapter_name_or_path=adapter)
    (hollow / "link").symlink_to(hollow)
    refused(hollow, "export_inside_source", export_dir=hollow / "link" / inside, adapter_name_or_path=adapter)


def test_a_target_that_cannot_be_written_is_refused(hollow: Path) -> None:
    (hollow / "file").write_text("")
    assert refused(hollow, "output_not_writable", export_dir=hollow / "file" / "out").values["label"] == label(
        "export_dir"
    )
    refused(hollow, "output_bad_name", export_dir=hollow / ("n" * 250))
    refused(hollow, "output_bad_name", export_dir=f"{hollow}/a\0b")
    refused(hollow, "setting_missing", export_dir=None)


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED: root may write anywhere")
def test_a_folder_of_somebody_else_is_refused(hollow: Path) -> None:
    (hollow / "closed").mkdir(mode=0o500)
    refused(hollow, "output_not_writable", export_dir=hollow / "closed" / "out")


def test_a_volume_cannot_be_replaced_by_a_folder(hollow: Path) -> None:
    if not os.path.ismount("/dev/shm") or os.listdir("/dev/shm"):
        pytest.skip("NOT TESTED: needs an empty mount point")
    refused(hollow, "export_mount", export_dir="/dev/shm")


def test_too_small_a_disk_is_refused_with_both_numbers(hollow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(hollow)
    monkeypatch.setattr(export_plan.shutil, "disk_usage", lambda path: usage._replace(free=20 * 10**6))
    problem = refused(hollow, "export_no_space")
    assert (problem.values["needed"], problem.values["free"]) == ("0.03", "0.02")


def test_what_a_killed_export_left_counts_as_free(hollow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(hollow)
    monkeypatch.setattr(export_plan.shutil, "disk_usage", lambda path: usage._replace(free=20 * 10**6))
    left = partial(hollow / "out") / export_plan.MODEL / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.touch()
    os.truncate(left, 20 * 10**6)
    held, _ = claim(planned(hollow))
    held.close()
    assert not left.exists()


def test_an_adapter_of_another_base_is_refused(hollow: Path) -> None:
    other = hollow / "other"
    shutil.copytree(hollow / "base", other)
    assert planned(hollow, model_name_or_path=other).model == other, "a copy is the same model"
    shapes = {"layers.0.q_proj.weight": [8, 4], "norm.weight": [4]}
    hollow_tensors(other / "model.safetensors", shapes, "BF16", fill=1)
    problem = refused(hollow, "export_other_base", model_name_or_path=other)
    assert str(hollow / "base") in str(problem)
    assert str(other) in str(problem)


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        ("Org/Base", True),
        ("/elsewhere/base/", True),
        ("/cache/models--org--base/snapshots/12ab", True),
        ("org/base-instruct", False),
        (None, True),
    ],
)
def test_a_base_that_is_not_here_is_known_by_its_name(hollow: Path, recorded: str | None, same: bool) -> None:
    edit_json(hollow / "adapter" / "adapter_config.json", base_model_name_or_path=recorded)
    if same:
        assert planned(hollow).adapter
    else:
        refused(hollow, "export_other_base")


@pytest.mark.parametrize(
    "shapes",
    [
        {"base_model.model.layers.0.q_proj.lora_A.weight": [2, 5]},
        {"base_model.model.layers.0.q_proj.lora_B.weight": [9, 2]},
        {"base_model.model.layers.1.q_proj.lora_A.weight": [2, 4]},
        {"base_model.model.norm.weight": [5]},
    ],
)
def test_an_adapter_of_other_shapes_is_refused_by_its_header(hollow: Path, shapes: dict[str, list[int]]) -> None:
    hollow_tensors(hollow / "adapter" / "adapter_model.safetensors", shapes)
    [name] = shapes
    assert name.removeprefix("base_model.model.") in str(refused(hollow, "adapter_mismatch"))


def test_a_bias_that_has_nowhere_to_go_is_refused(hollow: Path) -> None:
    layer = "layers.0.q_proj"
    shapes = {"lora_A.weight": [2, 4], "lora_B.weight": [8, 2], "lora_B.bias": [8]}
    lora = {f"base_model.model.{layer}.{name}": shape for name, shape in shapes.items()}
    hollow_tensors(hollow / "adapter" / "adapter_model.safetensors", lora)
    assert refused(hollow, "export_no_bias").values["layer"] == layer
    hollow_tensors(hollow / "base" / "model.safetensors", {f"{layer}.weight": [8, 4], f"{layer}.bias": [8]}, "BF16")
    assert planned(hollow).adapter


def test_what_cannot_be_merged_is_refused(hollow: Path) -> None:
    edit_json(hollow / "adapter" / "adapter_config.json", peft_type="LOHA")
    refused(hollow, "export_not_lora")
    edit_json(hollow / "base" / "config.json", quantization_config={"quant_method": "gptq"})
    assert "gptq" in str(refused(hollow, "export_quantized_base"))
    (hollow / "empty").mkdir()
    refused(hollow, "adapter_not_an_adapter", adapter_name_or_path=hollow / "empty")
    refused(hollow, "model_not_found", model_name_or_path=hollow / "nowhere")


def test_a_model_alone_is_exported_only_to_another_type(hollow: Path) -> None:
    assert "bfloat16" in str(refused(hollow, "export_nothing", adapter_name_or_path=None))
    refused(hollow, "export_nothing", adapter_name_or_path=None, infer_dtype="bfloat16")
    assert planned(hollow, adapter_name_or_path=None, infer_dtype="float32").dtype == "float32"


def test_a_run_without_a_result_stands_for_its_last_checkpoint(hollow: Path) -> None:
    for step in (5, 10):
        shutil.copytree(hollow / "adapter", hollow / "run" / f"checkpoint-{step}")
    (hollow / "run" / "config.yaml").write_text("template: chatml\n")
    plan = planned(hollow, adapter_name_or_path=hollow / "run")
    assert plan.adapter == hollow / "run" / "checkpoint-10"
    assert plan.template
    assert "<|im_start|>" in plan.template
    (plan.adapter / "chat_template.jinja").write_text("of the checkpoint")
    assert planned(hollow, adapter_name_or_path=hollow / "run").template == "of the checkpoint"
    assert planned(hollow).template is None, "the model's own"
    (hollow / "adapter" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "of the tokenizer"}))
    assert planned(hollow).template == "of the tokenizer"
    named = planned(hollow, template="qwen").template
    assert named == (export_plan.TEMPLATES_DIR / "qwen.jinja").read_text()


def test_a_whole_checkpoint_is_written_in_its_bases_type(hollow: Path) -> None:
    run = build_hollow_model(hollow / "run")
    (run / "config.yaml").write_text(f"model_name_or_path: {hollow / 'base'}\n")
    for given in ({"model_name_or_path": run, "adapter_name_or_path": None}, {"adapter_name_or_path": run}):
        plan = planned(hollow, **given)
        assert (plan.model, plan.adapter, plan.dtype, plan.load_dtype) == (run, None, "bfloat16", "float32")


def test_two_exports_do_not_write_to_one_folder(hollow: Path) -> None:
    held, _ = claim(planned(hollow))
    with held, pytest.raises(Problem) as caught:
        claim(planned(hollow))
    assert caught.value.code == "export_in_use"


def test_what_has_come_to_the_target_meanwhile_stays(hollow: Path) -> None:
    plan = planned(hollow)
    held, _ = claim(plan)
    (plan.partial / export_plan.MODEL).mkdir()
    plan.target.mkdir()
    (plan.target / "mine.txt").write_text("mine")
    with held, pytest.raises(Problem) as caught:
        publish(plan, {})
    assert caught.value.code == "export_exists"
    assert [path.name for path in plan.target.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_called_by_its_name(hollow: Path, error: Exception) -> None:
    problem = export_terminal._explained(error, planned(hollow))
    assert (problem.code, problem.values) == ("export_disk_full", {"path": str(hollow / "out")})


@pytest.mark.slow
def test_what_is_refused_is_refused_before_torch_is_imported(hollow: Path) -> None:
    code = "import sys, app.__main__ as m; rc = m.main(); sys.exit(7 if 'torch' in sys.modules else rc)"
    words = ["export", f"model_name_or_path={hollow / 'base'}", f"export_dir={hollow / 'out'}"]
    assert subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True).returncode == 2


def test_the_command_refuses_in_words_and_leaves_nothing(hollow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = hollow / "export.yaml"
    file.write_text(f"model_name_or_path: {hollow / 'base'}\nexport_size: 5\n")
    assert run_export([str(file), f"export_dir={hollow / 'base' / 'x'}", "--export_device", "cpu"]) == 2
    assert "Nothing to export" in (shown := capsys.readouterr()).err or "没有可导出" in shown.err
    assert not (hollow / "base" / "x").exists()


# ---- what comes out ----

torch = pytest.importorskip("torch")

from tests.tiny import build_tiny_adapter, build_tiny_model  # noqa: E402
from tests.trainer import test_methods as methods  # noqa: E402
from tests.trainer.test_methods import GIVEN, LORA, train_somewhat  # noqa: E402

Export = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A tiny model computes fastest on one core."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(cores)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("export") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return build_tiny_adapter(base.parent / "adapter", base)


@pytest.fixture(scope="module")
def data(base: Path) -> Path:
    (base.parent / "data").mkdir()
    (base.parent / "data" / "who.json").write_text(json.dumps([{"instruction": "你好", "output": "我是助手"}] * 12))
    return base.parent / "data"


@pytest.fixture
def export(base: Path, adapter: Path, tmp_path: Path) -> Export:
    """Exports in this process; the model's folder and what its record says."""

    def start(**values: Any) -> tuple[Path, dict[str, Any]]:
        from trainer.export import export

        given = {"model_name_or_path": base, "adapter_name_or_path": adapter, "export_dir": tmp_path / "out"}
        plan = check(parse({key: str(value) for key, value in (given | values).items() if value is not None}))
        held, events = claim(plan)
        with held:
            publish(plan, export(plan, events))
        return plan.target, export_plan.read_record(plan.target) or {}

    return start


def plain(folder: Path, **options: Any) -> Any:
    """As anyone loads a model, with nothing of ours."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options)


def close(model: Any, wanted: Any, atol: float = 1e-3) -> None:
    torch.testing.assert_close(methods.logits(model).float(), wanted.float(), rtol=atol, atol=atol)


def test_what_was_exported_is_said_in_both_languages() -> None:
    record = {
        "outcome": "completed",
        "path": "/o",
        "files": 2,
        "difference": 0.01,
        "tolerance": 0.1,
        "dtype": "bfloat16",
    }
    english = export_terminal._said("finished", record | {"bytes": 15.2e9, "adapter": "/a"}, "en") or ""
    assert "/o: 15.20 GB, files of weights: 2." in english
    assert "those of the checkpoint on its base by 0.01 (0.1 allowed for bfloat16)" in english
    chinese = export_terminal._said("finished", record | {"bytes": 15.2e6, "adapter": None}, "zh") or ""
    assert "15.20 MB，权重文件 2 个" in chinese
    assert "与原来的权重相差 0.01" in chinese


@pytest.mark.slow
@pytest.mark.parametrize("name", LORA)
def test_the_exported_model_is_the_trained_one(
    base: Path, adapter: Path, export: Export, tmp_path: Path, name: str
) -> None:
    from trainer.adapter import save_adapter

    torch.manual_seed(0)
    model = methods.model_to_train(methods.settings(base, adapter, name), None, "fp32", methods.CPU)
    train_somewhat(model)
    trained = methods.logits(model)
    save_adapter(model, tmp_path / "trained")
    folder, record = export(adapter_name_or_path=tmp_path / "trained")
    close(plain(folder), trained, atol=2e-3)
    assert not torch.allclose(trained, methods.logits(plain(adapter if name in GIVEN else base)), atol=0.1)
    assert record["difference"] < 1e-4 < record["effect"]
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is (name != "additional")
    assert config["use_cache"] is True


@pytest.mark.slow
def test_an_adapter_on_a_tied_output_layer_leaves_the_embedding_alone(
    base: Path, export: Export, tmp_path: Path
) -> None:
    from trainer.adapter import save_adapter

    chosen = methods.parse({"model_name_or_path": str(base), "lora_target": "all,lm_head", "compute_type": "fp32"})
    model = methods.model_to_train(chosen, None, "fp32", methods.CPU)
    train_somewhat(model)
    save_adapter(model, tmp_path / "trained")
    folder, _ = export(adapter_name_or_path=tmp_path / "trained")
    again = plain(folder)
    close(again, methods.logits(model))
    assert torch.equal(again.get_input_embeddings().weight, plain(base).get_input_embeddings().weight)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 0.05), ("float16", 0.006)])
def test_a_model_in_sixteen_bits_differs_by_no_more_than_rounding(
    base: Path, adapter: Path, export: Export, tmp_path: Path, dtype: str, rounding: float
) -> None:
    """And that with half of it to spare, or right merges of other models would be refused."""
    from trainer.export import ROUNDING

    kind = getattr(torch, dtype)
    assert ROUNDING[kind] == rounding
    _, record = export(infer_dtype=dtype)
    assert 1e-4 < record["difference"] < 0.6 * rounding
    plain(base, dtype=kind).save_pretrained(tmp_path / "base")  # stored so: merged in sixteen bits as well
    for file in base.glob("*token*"):
        shutil.copy(file, tmp_path / "base")
    shutil.copytree(adapter, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    folder, record = export(model_name_or_path=tmp_path / "base", adapter_name_or_path=tmp_path / "adapter",
                            export_dir=tmp_path / "same")  # fmt: skip
    assert record["dtype"] == dtype
    assert record["difference"] < 0.6 * rounding
    assert {parameter.dtype for parameter in plain(folder).parameters()} == {kind}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["freeze", "freeze-bf16", "full"])
def test_a_whole_checkpoint_is_exported_without_what_only_training_needs(
    base: Path, adapter: Path, data: Path, export: Export, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(methods.METHODS, "full", {"finetuning_type": "full"})
    methods.run(base, data, adapter, method, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(f"model_name_or_path: {base}\n")
    checkpoint = tmp_path / "run" / "checkpoint-2"
    folder, record = export(model_name_or_path=checkpoint, adapter_name_or_path=None)
    assert record["difference"] < 1e-4
    close(plain(folder), methods.logits(plain(checkpoint, dtype=torch.float32)))
    assert json.loads((folder / "config.json").read_text())["use_cache"] is True
    assert not {path.name for path in folder.iterdir()} & {*run_folder.RESUME_FILES, "training_args.bin"}
    again, _ = export(adapter_name_or_path=tmp_path / "run", export_dir=tmp_path / "result")
    close(plain(again), methods.logits(plain(tmp_path / "run", dtype=torch.float32)))


@pytest.mark.slow
def test_files_are_split_and_readable_by_others(export: Export) -> None:
    before = os.umask(0o022)
    try:
        folder, record = export(export_size=0.0002)
    finally:
        os.umask(before)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) == record["files"] > 1
    assert (folder / "model.safetensors.index.json").is_file()
    assert all(shard.stat().st_size < 210_000 for shard in shards)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.slow
def test_the_trained_template_and_its_end_go_with_the_model(base: Path, export: Export, tmp_path: Path) -> None:
    """A base without a template, whose own end of text is another token than the template's."""
    from transformers import AutoTokenizer

    from trainer.chat_model import ChatModel
    from trainer.settings import parse as parse_training

    bare = build_tiny_model(tmp_path / "bare", chat_template=None)
    edit_json(bare / "generation_config.json", eos_token_id=0, temperature=0.7)
    run = build_tiny_adapter(tmp_path / "run" / "checkpoint-5", bare).parent
    (run / "config.yaml").write_text("template: chatml\n")
    folder, _ = export(model_name_or_path=bare, adapter_name_or_path=run / "checkpoint-5")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "你好"}], tokenize=False)
    assert "<|im_start|>user" in text
    generation = plain(folder).generation_config
    assert generation.eos_token_id == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert (generation.temperature, generation.do_sample) == (0.7, True)
    assert ChatModel(folder).folder == folder
    chosen = parse_training({"model_name_or_path": str(folder)})
    assert methods.model_to_train(chosen, None, "fp32", methods.CPU).num_parameters() > 0


@pytest.mark.slow
def test_a_model_without_any_template_is_exported(export: Export, tmp_path: Path) -> None:
    bare = build_tiny_model(tmp_path / "bare", chat_template=None)
    folder, _ = export(model_name_or_path=bare, adapter_name_or_path=build_tiny_adapter(tmp_path / "a", bare))
    assert not (folder / "chat_template.jinja").exists()


@pytest.mark.slow
def test_an_effect_that_rounding_hides_is_told(base: Path, export: Export, tmp_path: Path) -> None:
    weak = build_tiny_adapter(tmp_path / "weak", base, scale=0.01)
    _, record = export(adapter_name_or_path=weak, infer_dtype="bfloat16")
    assert record["effect"] < 2 * record["difference"]
    events, _ = read_events(partial(tmp_path / "out") / run_folder.EVENTS)
    assert [event["code"] for event in events if event["event"] == "warning"] == ["export_effect_small"]
    assert [event["stage"] for event in events if event["event"] == "stage"] == [
        "starting", "loading_model", "merging", "saving", "checking",
    ]  # fmt: skip


def test_less_than_half_of_an_effect_may_be_lost() -> None:
    """Or an export that forgets a small adapter would pass."""
    from trainer.export import allowed

    assert allowed(0.01, torch.float32) == pytest.approx(1e-3)
    assert allowed(0.001, torch.float32) == pytest.approx(5e-4)
    assert allowed(0.0, torch.float32) == pytest.approx(1e-4)
    assert allowed(None, torch.bfloat16) == pytest.approx(0.1)
    assert allowed(0.16, torch.bfloat16) == pytest.approx(0.08)


@pytest.mark.slow
def test_a_merge_that_goes_wrong_is_found_and_nothing_is_left(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: torch.zeros_like(self.base_layer.weight))
    flags = [
        "--model_name_or_path",
        str(base),
        "--adapter_name_or_path",
        str(adapter),
        "--export_dir",
        str(tmp_path / "out"),
    ]
    assert run_export(flags) == 1
    assert "logits differ by" in (shown := capsys.readouterr().err) or "logits 相差" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("followed", "number"), [(False, signal.SIGHUP), (True, signal.SIGTERM)])
def test_a_stop_after_the_weights_are_written_removes_them(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed: bool, number: signal.Signals
) -> None:
    seen = []
    log = partial(tmp_path / "out") / export_plan.LOG
    if followed:  # as a page starts it
        log.parent.mkdir()
        log.touch()

    class Stopping(EventLog):
        def append(self, event: str, **values: Any) -> None:
            super().append(event, **values)
            if values.get("stage") == "checking":
                seen.extend(partial(tmp_path / "out").rglob("model.safetensors"))
                os.kill(os.getpid(), number)

    monkeypatch.setattr(export_terminal, "_terminal_log", lambda language: Stopping)
    values = {"model_name_or_path": base, "adapter_name_or_path": adapter, "export_dir": tmp_path / "out"}
    assert run_export([f"{key}={value}" for key, value in values.items()]) == 130
    assert seen
    left = {path.name for path in tmp_path.rglob("*")}
    status = {log.parent.name, log.name, run_folder.EVENTS, run_folder.IDENTITY, run_folder.LOCK}
    assert left == (status if followed else set())


@pytest.mark.slow
def test_a_damaged_adapter_is_not_exported(base: Path, export: Export, tmp_path: Path) -> None:
    broken = build_tiny_adapter(tmp_path / "broken", base, scale=float("nan"))
    with pytest.raises(Problem) as caught:
        export(adapter_name_or_path=broken)
    assert caught.value.code == "export_not_finite"
    assert "q_proj" in caught.value.values["name"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_exports(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    (tmp_path / "out").mkdir()
    values = {
        "model_name_or_path": base,
        "adapter_name_or_path": adapter,
        "export_dir": tmp_path / "out",
        "export_device": "auto",
    }
    assert run_export([f"{key}={value}" for key, value in values.items()]) == 0
    said = capsys.readouterr().err
    assert f"Exported to {tmp_path / 'out'}: 0.41 MB, files of weights: 1. Loaded again, its logits" in said
    assert "differ from those of the checkpoint on its base by" in said
    record = export_plan.read_record(tmp_path / "out")
    assert record
    assert record["path"] == str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
