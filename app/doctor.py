"""`tunedesk doctor`: what works on this machine and what does not, each with what to do about it.

Words and JSON come from the same findings. Never imports torch: a process of its own does, with a time limit.
"""

import argparse
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app import doctor_devices, doctor_machine, doctor_packages
from app.arguments import PROJECT
from app.doctor_finding import BROKEN, MARKS, OK, WARNING, Checked, Finding
from app.text import Text
from trainer.problems import Language
from trainer.terminal_parser import TerminalParser

LIMIT_S = 9.0
# A package that brings devices to torch takes some seconds more to import.
PATIENT_S = 40.0

_FLAGS: dict[Language, dict[str, str]] = {
    "en": {
        "about": "Check this machine.",
        "json": "findings as JSON, in English and Chinese",
        "runs_dir": "folder of the runs (default runs)",
        "host": "address that the page is to listen on",
        "port": "port that the page is to listen on (default 7860)",
        "offline": "do not ask the model hubs",
    },
    "zh": {
        "about": "检查本机。",
        "json": "以 JSON 输出结果，含中英文",
        "runs_dir": "训练结果的文件夹（默认 runs）",
        "host": "页面将要监听的地址",
        "port": "页面将要监听的端口（默认 7860）",
        "offline": "不访问模型库",
    },
}


def doctor_parser(language: Language = "en") -> argparse.ArgumentParser:
    words = _FLAGS[language]
    parser = TerminalParser("tunedesk doctor", words["about"], language)
    parser.add_argument("--json", action="store_true", help=words["json"])
    runs_dir = os.environ.get("TUNEDESK_RUNS_DIR") or "runs"
    parser.add_argument("--runs-dir", type=Path, default=Path(runs_dir), metavar="DIR", help=words["runs_dir"])
    parser.add_argument("--host", default="127.0.0.1", metavar="…", help=words["host"])
    parser.add_argument("--port", type=int, default=7860, metavar="…", help=words["port"])
    parser.add_argument("--offline", action="store_true", help=words["offline"])
    return parser


def findings(arguments: argparse.Namespace) -> list[Finding]:
    """All checks, side by side: the slowest ones wait for other programs and hosts."""
    checks: list[Callable[[], list[Checked]]] = [
        doctor_machine.python,
        lambda: doctor_packages.packages(PROJECT / "constraints.txt"),
        doctor_packages.extras,
        doctor_packages.compiler,
        doctor_devices.devices,
        lambda: doctor_devices.torch_devices(PATIENT_S if doctor_packages.has_its_own_torch() else LIMIT_S - 1.5),
        doctor_devices.toolkit,
        doctor_machine.memory,
        lambda: doctor_machine.folders(arguments.runs_dir),
        lambda: doctor_machine.port(arguments.host, arguments.port),
        doctor_machine.proxies,
        doctor_machine.offline if arguments.offline else doctor_machine.hubs,
    ]
    with ThreadPoolExecutor(len(checks)) as pool:
        return [Finding.of(one) for checked in pool.map(lambda check: check(), checks) for one in checked]


def as_json(found: list[Finding]) -> dict[str, Any]:
    return {"ok": all(one.state != BROKEN for one in found), "findings": [asdict(one) for one in found]}


def as_words(found: list[Finding], text: Text) -> str:
    """A line a finding, its remedy below; what needs doing comes last, where it is read first."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{MARKS[one.state]} {text(f'doctor.{one.check}')}: {one.said[text.language]}")
        if one.remedy:
            lines.append(f"    → {one.remedy[text.language]}")
    broken, warned = (sum(one.state == state for one in found) for state in (BROKEN, WARNING))
    end = "doctor.all_well" if not broken and not warned else "doctor.summary"
    return "\n".join([*lines, "", text(end, broken=broken, warned=warned)])


def run_doctor(argv: list[str], language: Language) -> int:
    """0 when nothing is broken, 1 otherwise."""
    arguments = doctor_parser(language).parse_args(argv)
    found = findings(arguments)
    if arguments.json:
        print(json.dumps(as_json(found), ensure_ascii=False, indent=2))
    else:
        print(as_words(found, Text(language)))
    return 0 if all(one.state in (OK, WARNING) for one in found) else 1
