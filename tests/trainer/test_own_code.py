"""A model folder's own Python code, and pickles, are never run: not by the tokenizer, the model, an adapter or a state."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import build_tiny_model
from trainer.checkpoint import read_training
from trainer.model import load_model, load_tokenizer
from trainer.model_folder import check_adapter_folder, check_model_folder
from trainer.problems import Problem

pytestmark = pytest.mark.slow


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._path), "w")


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """There once any of the code has run."""
    return tmp_path / "ran"


@pytest.fixture
def model(tmp_path: Path, ran: Path) -> Path:
    """A model with code wherever transformers looks for some."""
    folder = build_tiny_model(tmp_path / "model")
    for name in ("configuration_x", "modeling_x", "tokenization_x"):
        code = f"open({str(ran)!r}, 'a')\nclass XConfig: pass\nclass XModel: pass\nclass XTokenizer: pass\n"
        (folder / f"{name}.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(ran)!r}, 'a')\ndef generate(*_, **__): pass\n")
    change(folder / "config.json", attn_implementation="someone/kernel",
           auto_map={"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XModel"})  # fmt: skip
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.XTokenizer", None]})
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Touch(ran), file)
    return folder


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def load(model: Path) -> None:
    load_tokenizer(model)
    loaded = load_model(model, torch.float32, torch.device("cpu"))
    loaded.generate(torch.tensor([[1]]), max_new_tokens=1)


def test_the_code_of_a_known_architecture_is_left_alone(model: Path, ran: Path) -> None:
    load(model)
    assert not ran.exists()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_model_that_needs_its_own_code_is_refused_in_words(model: Path, ran: Path, language: Any) -> None:
    change(model / "config.json", model_type="x")
    change(model / "tokenizer_config.json", tokenizer_class="XTokenizer")
    for use in (load_tokenizer, lambda folder: load_model(folder, torch.float32, torch.device("cpu"))):
        with pytest.raises(Problem) as caught:
            use(model)
        assert caught.value.code == "model_own_code"
        assert "Python" in caught.value.sentence(language)
    assert not ran.exists()


def test_a_model_of_pickles_alone_is_refused(model: Path, ran: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(Problem) as caught:
        check_model_folder(model)
    assert caught.value.code == "model_unsafe"
    assert not ran.exists()


def test_an_adapter_of_pickles_is_refused(tmp_path: Path, ran: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "auto_mapping": {"parent_library": "x"}}'
    )
    with (tmp_path / "adapter" / "adapter_model.bin").open("wb") as file:
        pickle.dump(Touch(ran), file)
    with pytest.raises(Problem) as caught:
        check_adapter_folder(tmp_path / "adapter")
    assert caught.value.code == "model_unsafe"


def test_a_state_that_holds_code_is_not_unpickled(tmp_path: Path, ran: Path) -> None:
    with (tmp_path / "optimizer.pt").open("wb") as file:
        pickle.dump(Touch(ran), file)
    with pytest.raises(Problem):
        read_training(tmp_path)
    torch.save({"x": Touch(ran)}, tmp_path / "optimizer.pt")
    with pytest.raises(Problem):
        read_training(tmp_path)
    assert not ran.exists()


def test_a_trusted_models_own_code_is_run(tmp_path: Path, ran: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    (folder / "configuration_x.py").write_text(
        "from transformers import Qwen2Config\nclass XConfig(Qwen2Config):\n    model_type = 'x'\n"
    )
    (folder / "modeling_x.py").write_text(
        f"from transformers import Qwen2ForCausalLM\nfrom .configuration_x import XConfig\nopen({str(ran)!r}, 'a')\n"
        "class XModel(Qwen2ForCausalLM):\n    config_class = XConfig\n"
    )
    change(folder / "config.json", model_type="x",
           auto_map={"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XModel"})  # fmt: skip
    load_tokenizer(folder, trust_remote_code=True)
    loaded = load_model(folder, torch.float32, torch.device("cpu"), trust_remote_code=True)
    assert type(loaded).__name__ == "XModel"
    assert loaded.generate(torch.tensor([[1]]), max_new_tokens=2).shape == (1, 3)
    assert ran.exists()
