"""The named templates: which one a model's family has, and which tokens each needs. Light: reads small files only."""

import json
import re
from pathlib import Path
from typing import Any

from trainer.plain_file import open_plain, read_plain
from trainer.problems import Problem
from trainer.settings import TEMPLATES_DIR, label

# model_type of config.json → template, where the type alone tells.
_BY_TYPE = {
    "qwen": "qwen", "qwen2": "qwen", "qwen2_moe": "qwen", "qwen2_vl": "qwen", "qwen2_5_vl": "qwen",
    "qwen3": "qwen3", "qwen3_moe": "qwen3", "qwen3_next": "qwen3", "qwen3_vl": "qwen3",
    "llama4": "llama4", "llama4_text": "llama4",
    "mistral": "mistral", "mixtral": "mistral", "ministral": "mistral", "mistral3": "mistral",
    "gemma": "gemma", "gemma2": "gemma", "gemma3": "gemma3", "gemma3_text": "gemma3", "gemma3n": "gemma3",
    "glm": "glm4", "glm4": "glm4", "glm4_moe": "glm4",
    "deepseek": "deepseek", "deepseek_v2": "deepseek", "deepseek_v3": "deepseek-r1",
    "internlm2": "internlm2", "internlm3": "internlm2", "yi": "yi",
}  # fmt: skip
# What tells families of one model_type apart, in this order: tokens that all of them have, and only they.
_BY_TOKENS = {
    "llama4": ("<|header_start|>", "<|eot|>"),
    "llama3": ("<|start_header_id|>", "<|eot_id|>"),
    "phi4": ("<|im_start|>", "<|im_sep|>"),
    "deepseek-r1": ("<｜User｜>", "<｜Assistant｜>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "internlm2": ("<|im_start|>", "<|action_start|>"),
    "baichuan2": ("<reserved_106>", "<reserved_107>"),
    "glm4": ("[gMASK]", "<sop>", "<|observation|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}
# (model_type, vocab_size): where the tokenizer's files do not show its tokens.
_BY_SIZE = {
    ("llama", 32000): "llama2", ("llama", 128256): "llama3", ("llama", 64000): "yi", ("llama", 102400): "deepseek",
    ("phi3", 100352): "phi4", ("baichuan", 125696): "baichuan2", ("chatglm", 151552): "glm4",
    ("llama", 92544): "internlm2",
}  # fmt: skip
_TOKENS = re.compile(r"Tokens:([^#]*)-#}")
# tokenizer.json lists its added tokens first; the vocabulary after them may have 30 MB.
_HEAD_BYTES = 2**22


def source(name: str) -> str:
    """The Jinja text of a named template."""
    return (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")


def special_tokens(name: str) -> list[str]:
    """The tokens that the named template needs, as its first comment tells."""
    found = _TOKENS.search(source(name).split("-#}")[0] + "-#}")
    return found[1].split() if found else []


def guess(model_folder: Path) -> str | None:
    """The named template of the model's family, as its config and its tokenizer's added tokens show it; else None."""
    config = _json(model_folder / "config.json")
    kind = str(config.get("model_type", "")).lower()
    if kind in _BY_TYPE:
        return _BY_TYPE[kind]
    tokens = added_tokens(model_folder)
    for family, telling in _BY_TOKENS.items():
        if tokens.issuperset(telling):
            return family
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if isinstance(size, int) and (known := _BY_SIZE.get((kind, size))):
        return known
    return "chatml" if tokens.issuperset(("<|im_start|>", "<|im_end|>")) else None


def generation_ends(model_folder: Path) -> list[int]:
    """The ids of the tokens after which the model says that generation stops; none where it does not say."""
    given = _json(model_folder / "generation_config.json").get("eos_token_id")
    ends = given if isinstance(given, list) else [given]
    return [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]


def own_source(folder: Path) -> str | None:
    """The source of the chat template that the model or adapter in `folder` brings, of several the default one."""
    try:
        if text := read_plain(folder / "chat_template.jinja"):
            return text
    except (OSError, ValueError):  # none, or whoever loads it will say what is wrong with it
        pass
    # Multimodal models keep that of their processor in a file of its own, which tokenizers do not read.
    for name in ("tokenizer_config.json", "chat_template.json"):
        given = _json(folder / name).get("chat_template")
        if isinstance(given, list):
            entries = [entry for entry in given if isinstance(entry, dict) and entry.get("name") == "default"]
            given = entries[0].get("template") if entries else None
        if isinstance(given, dict):
            given = given.get("default")
        if isinstance(given, str) and given:
            return given
    return None


def has_own_template(model_folder: Path) -> bool:
    """Whether the model brings a chat template."""
    return own_source(model_folder) is not None


def source_of(model_folder: Path, name: str) -> str | None:
    """The source of the template `name`, of "auto" the model's own, else its family's; None where there is none."""
    if name != "auto":
        return source(Path(name).name)
    if own := own_source(model_folder):
        return own
    guessed = guess(model_folder)
    return source(guessed) if guessed else None


def warnings(model_folder: Path, name: str) -> list[Problem]:
    """What to say before the template `name` ("auto": whichever it comes to) is used for that model.

    Codes: template_missing, which stops a training; template_guessed, template_tokens_missing.
    """
    found: list[Problem] = []
    if name == "auto":
        if has_own_template(model_folder):
            return []
        guessed = guess(model_folder)
        if guessed is None:
            return [Problem("template_missing", label=label("template"), path=str(model_folder))]
        found.append(guess_warning(str(model_folder), guessed))
        name = guessed
    known = added_tokens(model_folder)
    missing = [token for token in special_tokens(name) if token not in known]
    if missing and _shows_its_tokens(model_folder):
        found.append(tokens_warning(str(model_folder), name, missing))
    return found


def guess_warning(path: str, name: str) -> Problem:
    return Problem("template_guessed", label=label("template"), path=path, template=name)


def tokens_warning(path: str, name: str, missing: list[str]) -> Problem:
    return Problem(
        "template_tokens_missing", label=label("template"), path=path, template=name, tokens=" ".join(missing)
    )


def added_tokens(model_folder: Path) -> set[str]:
    """The tokens that the tokenizer's files name outside its vocabulary."""
    decoder = _json(model_folder / "tokenizer_config.json").get("added_tokens_decoder")
    listed = list(decoder.values()) if isinstance(decoder, dict) else []
    listed += _added_of_tokenizer(model_folder / "tokenizer.json")
    named = [*_json(model_folder / "added_tokens.json"), *_json(model_folder / "special_tokens_map.json").values()]
    texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in [*listed, *named]]
    return {text for text in texts if isinstance(text, str)}


def _shows_its_tokens(model_folder: Path) -> bool:
    """A SentencePiece model keeps its control tokens inside, where only its library reads them."""
    return (model_folder / "tokenizer.json").is_file()


def _added_of_tokenizer(file: Path) -> list[Any]:
    try:
        with open_plain(file) as stream:
            head = stream.read(_HEAD_BYTES).decode("utf-8", errors="ignore")  # its last character may be cut
        at = head.index('"added_tokens"')
        value, _ = json.JSONDecoder().raw_decode(head, head.index("[", at))
    except (OSError, ValueError, RecursionError):  # no such file, or whoever loads it will say what is wrong with it
        return []
    return value if isinstance(value, list) else []


def _json(file: Path) -> dict[str, Any]:
    """The object in `file`; {} where there is none, as the checks of the model folder say what is wrong with it."""
    try:
        value = json.loads(read_plain(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def beside(adapter: Path) -> str | None:
    """The source of the template that was saved with `adapter`: the one it was trained with."""
    return own_source(adapter)
