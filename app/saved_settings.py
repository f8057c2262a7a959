"""Saved training settings: YAML files in one folder below the runs, which `tunedesk train FILE` takes too."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from app.roots import resolved
from app.runs import SETTINGS_FOLDER
from app.text import both
from trainer.problems import Problem
from trainer.run_folder import write_whole
from trainer.settings import TrainSettings, parse
from trainer.settings_file import read_yaml, to_yaml


def folder(runs_dir: Path) -> Path:
    return runs_dir.absolute() / SETTINGS_FOLDER


def new_name() -> str:
    return time.strftime("%Y-%m-%d-%H-%M-%S.yaml")


def names(runs_dir: Path) -> list[str]:
    """Saved files, newest first."""
    found = [path for path in folder(runs_dir).glob("*.y*ml") if path.is_file()]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def path_for(runs_dir: Path, name: str) -> Path:
    """The file `name` in the settings folder. Raises Problem for names that lead elsewhere."""
    name = (name or "").strip()
    where = {"label": both("config_path"), "value": f"`{name}`"}
    if not name:
        raise Problem("setting_missing", label=both("config_path"))
    if any(char in '/\\:*?"<>|' or not char.isprintable() for char in name):
        raise Problem("settings_bad_name", **where)
    if name.startswith(".") or len(name.encode()) > 200:
        raise Problem("settings_bad_name", **where)
    path = folder(runs_dir) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    real = resolved(path)
    if real is None or real.parent != runs_dir.resolve() / SETTINGS_FOLDER:  # a symbolic link to elsewhere
        raise Problem("settings_bad_name", **where)
    return path


def save(runs_dir: Path, name: str, settings: TrainSettings, typed: Mapping[str, Any]) -> Path:
    """Writes a new file, whole or not at all; numbers as `typed`. Raises Problem when it exists already or cannot be written."""
    path = path_for(runs_dir, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise Problem("settings_exists", label=both("config_path"), value=f"`{name}`")
        write_whole(path, to_yaml(settings, typed))
    except OSError as error:
        raise Problem("output_not_writable", label=both("config_path"), path=str(path), detail=error.strerror) from None
    return path


def load(runs_dir: Path, name: str) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings of a saved file, and what it says as it is written there. Raises Problem or Problems."""
    path = path_for(runs_dir, name)
    settings = parse(read_yaml(path))
    # BaseLoader makes every scalar text, so that 3e-4 comes back as 3e-4.
    return settings, yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  # makes text of everything, objects of nothing
