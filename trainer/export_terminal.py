"""`tunedesk export`: arguments to settings, checks, and the partial folder claimed, all before torch is imported."""

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from typing import Any

from trainer import torch_import, unused_accelerators
from trainer.command import terminal_language, typed_values
from trainer.events import EventLog
from trainer.export_plan import LOG, MODEL, Plan, check, claim, publish
from trainer.export_settings import ExportSettings, choices, default_text, keys, parse, shown
from trainer.model_folder import read_ahead
from trainer.problems import Language, Problem, Problems, sentence
from trainer.terminal_parser import TerminalParser

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_WORDS: dict[str, dict[Language, str]] = {
    "about": {"en": "Merge a checkpoint into a model that stands alone.", "zh": "将检查点合并为可独立使用的模型。"},
    "pairs": {
        "en": "a settings file (YAML), then key=value pairs that override it",
        "zh": "设置文件（YAML），其后可用 键=值 覆盖",
    },
    "default": {"en": "default", "zh": "默认"},
    "loading_model": {"en": "Loading the model …", "zh": "正在加载模型……"},
    "merging": {"en": "Merging …", "zh": "正在合并……"},
    "saving": {"en": "Saving …", "zh": "正在保存……"},
    "checking": {"en": "Loading the result and comparing …", "zh": "正在重新加载结果并比较……"},
    "completed": {
        "en": "Exported to {path}: {size}, files of weights: {files}. Loaded again, its logits differ from those of the "
        "{original} by {difference} ({tolerance} allowed for {dtype}).",
        "zh": "已导出到 {path}：{size}，权重文件 {files} 个。重新加载后，logits 与{original}相差 {difference}（{dtype} 允许 {tolerance}）。",
    },
    "adapted": {"en": "checkpoint on its base", "zh": "原模型加检查点"},
    "whole": {"en": "original", "zh": "原来的权重"},
    "stopped": {"en": "Stopped. Nothing was exported.", "zh": "已停止，没有导出任何内容。"},
}


def parser(language: Language) -> argparse.ArgumentParser:
    """Flags made from the settings; FILE and key=value as for `tunedesk train`."""
    result = TerminalParser("tunedesk export", _WORDS["about"][language], language)
    result.add_argument("file_or_pairs", nargs="*", metavar="FILE | key=value", help=_WORDS["pairs"][language])
    for key in keys():
        text = f"{shown(key).label(language)}: {shown(key).help(language)}"
        options = f" [{'|'.join(choices(key))}]" if choices(key) else ""
        default = f" ({_WORDS['default'][language]}: {default_text(key)})" if default_text(key) else ""
        result.add_argument(f"--{key}", help=(text + options + default).replace("%", "%%"), metavar="…")
    return result


def settings_from(argv: list[str], language: Language) -> ExportSettings:
    """Settings from files, key=value pairs and flags; later ones win. Raises Problem or Problems."""
    if {"-h", "--help"} & set(argv):
        parser(language).parse_args(["--help"])
    return parse(typed_values(argv))


def run_export(argv: list[str]) -> int:
    """0 when the model was exported, 1 when it failed, 2 when it could not start, 130 when it was stopped."""
    language = terminal_language()
    for number in _ENDINGS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup has the terminal's end ignored
            signal.signal(number, signal.default_int_handler)
    try:
        plan = check(settings_from(argv, language))
        held, events = claim(plan, _terminal_log(language))
    except (Problem, Problems) as error:
        for problem in error.problems if isinstance(error, Problems) else [error]:
            print(problem.sentence(language), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    with held:
        return _run(plan, events)


def _run(plan: Plan, events: EventLog) -> int:
    """Exports, and leaves either the whole model or none of it, and the last event that says which."""
    try:
        record = _export(plan, events)
    except KeyboardInterrupt:
        code, ending = 130, {"outcome": "stopped"}
    except Exception as error:
        problem = _explained(error, plan)
        if problem.code == "python_error":
            traceback.print_exc()
        code, ending = 1, {"outcome": "failed", "code": problem.code, **problem.values}
    else:
        code, ending = 0, {"outcome": "completed", **record}
    _ignore_signals()
    shutil.rmtree(plan.partial / MODEL, ignore_errors=True)
    events.append("finished", **ending)
    # A page that started it reads how it ended in the partial folder; nobody else does.
    if code == 0 or not (plan.partial / LOG).exists():
        shutil.rmtree(plan.partial, ignore_errors=True)
    return code


def _export(plan: Plan, events: EventLog) -> dict[str, Any]:
    began = time.monotonic()
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")  # what libraries tell each other
    read_ahead(plan.model)
    torch_import.prepare()
    if plan.settings.export_device != "cpu" and (problem := unused_accelerators.problem()):
        events.append("warning", code=problem.code, **problem.values)
    from transformers.utils import logging  # takes seconds

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from trainer.export import export

    record = export(plan, events) | {"path": str(plan.target), "seconds": round(time.monotonic() - began, 1)}
    _ignore_signals()  # between the name and the event that tells of it
    publish(plan, record)
    return record


def _explained(error: Exception, plan: Plan) -> Problem:
    if isinstance(error, Problem):
        return error
    if "trainer.device" in sys.modules:
        from trainer.device import current, is_out_of_memory

        if is_out_of_memory(error):
            used = "CPU" if plan.settings.export_device == "cpu" else current().name
            return Problem("export_out_of_memory", device=used)
    # safetensors wraps the system's error in words of its own.
    if getattr(error, "errno", None) == 28 or "No space left on device" in str(error):
        return Problem("export_disk_full", path=str(plan.target))
    lines = str(error).strip().splitlines() or [""]
    return Problem("python_error", kind=type(error).__name__, detail=lines[0][:300].rstrip("."))


def _ignore_signals() -> None:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def _terminal_log(language: Language) -> type[EventLog]:
    """An event log that says on stderr, in words, what it writes."""

    class TerminalLog(EventLog):
        def append(self, event: str, **values: Any) -> None:
            super().append(event, **values)
            if text := _said(event, values, language):
                print(text, file=sys.stderr, flush=True)

    return TerminalLog


def _said(event: str, values: dict[str, Any], language: Language) -> str | None:
    if "code" in values:
        return sentence(values["code"], values, language)
    found = _WORDS.get(values.get("stage") or values.get("outcome") or "")
    if not found or event not in ("stage", "finished"):
        return None
    original = _WORDS["adapted" if values.get("adapter") else "whole"][language]
    return found[language].format(**values, size=_size(values.get("bytes", 0)), original=original)


def _size(of: int) -> str:
    return f"{of / 1e9:.2f} GB" if of >= 1e8 else f"{of / 1e6:.2f} MB"
