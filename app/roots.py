"""Which folders the page may touch for what a browser sends: those it was started with. Everything else is refused.

Commands that a person runs in a terminal are not confined. No torch here.
"""

import os
import stat
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.export_settings import ExportSettings
from trainer.export_settings import label as export_label
from trainer.hub_caches import hub_caches
from trainer.model_folder import resolve
from trainer.prepare import absolute
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, label

# The settings that name a file or folder. Not so `latest` and DeepSpeed's `2` and `3`: those are no absolute paths.
PATHS = (
    "model_name_or_path",
    "adapter_name_or_path",
    "dataset_dir",
    "output_dir",
    "resume_from_checkpoint",
    "deepspeed",
)
EXPORT_PATHS = ("model_name_or_path", "adapter_name_or_path", "export_dir")
MODEL_FILES = frozenset(("config.json", "adapter_config.json"))
MOST_SHOWN = 200
# Linux's own.
MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4096

Label = str | dict[str, str]


@dataclass(frozen=True)
class Roots:
    """`folders`: absolute, symbolic links resolved. What lies in one of them, or is one, may be used.

    `trust_remote_code`: Python code in a model's folder may be run.
    """

    folders: tuple[Path, ...]
    trust_remote_code: bool = False

    @classmethod
    def of(cls, arguments: Namespace) -> "Roots":
        """Those of a page started with `arguments`.

        The working folder, the model and its neighbours, the folders of data and of runs, the hubs' caches, and what
        --allow-path names. "/" is one only when it is named: it comes about by itself where a container starts there.
        """
        model = Path(arguments.model).expanduser().absolute()
        implied = [Path.cwd(), model.parent, model.resolve().parent, *hub_caches()]
        named = [model, Path(arguments.data_dir), Path(arguments.runs_dir), *map(Path, arguments.allow_path)]
        implied += [link.resolve().parent for link in _links(model)]  # weights on another disk
        found = [real for path in implied if (real := path.expanduser().resolve()) != Path("/")]
        return cls(
            tuple(dict.fromkeys([*found, *(path.expanduser().resolve() for path in named)])),
            arguments.trust_remote_code,
        )

    def __contains__(self, path: str | Path) -> bool:
        return self._holds(path) and self._holds(_led_to(path))

    def _holds(self, path: str | Path) -> bool:
        real = resolved(path)
        return real is not None and any(real.is_relative_to(folder) for folder in self.folders)

    def check(self, path: str | Path, label: Label) -> Path:
        """`path`, absolute. Raises Problem, naming the setting by `label`, when it, or a link in it, leads outside.

        Says the same of what exists there and of what does not.
        """
        outside = path if path not in self else next((link for link in _links(_led_to(path)) if link not in self), None)
        if outside is not None:
            path = outside
            shown = " ".join(str(path).replace("\0", "?").split())
            shown = shown[:MOST_SHOWN] + "…" * (len(shown) > MOST_SHOWN)
            raise Problem("path_outside", label=label, path=shown)
        return Path(os.path.expanduser(str(path).strip())).absolute()

    def check_settings(self, settings: TrainSettings) -> None:
        """Raises Problems with every path of `settings` that leads outside, and for a model's own code to be run."""
        if settings.trust_remote_code and not self.trust_remote_code:
            raise Problems([Problem("trust_refused", label=label("trust_remote_code"))])
        whole = absolute(settings)
        paths = [(getattr(whole, key), label(key)) for key in PATHS]
        self._check_all([(path, words) for path, words in paths if path and os.path.isabs(path)])

    def check_typed(self, values: Mapping[str, Any]) -> None:
        """Raises Problems with every path in a form's `values` that leads outside, whatever else is wrong with them.

        The output folder, which is a name there, is not among them.
        """
        typed = [(values.get(key), label(key)) for key in PATHS if key != "output_dir"]
        self._check_all([(path, words) for path, words in typed if isinstance(path, str) and path.strip()])

    def check_export(self, settings: ExportSettings) -> None:
        """Raises Problems with every path of `settings`, which are absolute, that leads outside."""
        self._check_all([(getattr(settings, key), export_label(key)) for key in EXPORT_PATHS])

    def _check_all(self, paths: Sequence[tuple[str | None, Label]]) -> None:
        found = []
        for path, words in paths:
            try:
                if path:
                    self.check(path, words)
            except Problem as problem:
                found.append(problem)
        if found:
            raise Problems(found)


def resolved(path: str | Path) -> Path | None:
    """Where `path` leads, whether there is anything or not; None for what no file can be called."""
    try:
        text = os.path.expanduser(str(path).strip())
        real = os.path.realpath(text)
        encoded = os.fsencode(real)
    except (OSError, ValueError):  # a null byte, half of a surrogate pair
        return None
    too_long = len(encoded) >= MOST_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MOST_NAME_BYTES
    # A home of nobody's stays as it is.
    return None if too_long or not text or text.startswith("~") else Path(real)


def temporary_folder() -> str:
    """A folder for temporary files that is this user's and nobody else's: others may have made one of its name."""
    folder = os.path.join(tempfile.gettempdir(), f"tunedesk-{os.getuid()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:  # a file, or a link to nowhere
        return tempfile.mkdtemp(prefix="tunedesk-")
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if own else tempfile.mkdtemp(prefix="tunedesk-")


def _led_to(path: str | Path) -> Path:
    """What is read where `path` names a model: a hub's id and a folder of its cache lead to a snapshot elsewhere."""
    try:
        return resolve(Path(os.path.expanduser(str(path).strip())))
    except (OSError, ValueError):  # not there, or not ours to look into
        return Path(path)


def _links(folder: Path) -> list[Path]:
    """The symbolic links in `folder` where it is a model's or an adapter's: whoever loads it follows them."""
    try:
        entries = list(os.scandir(folder))
    except (OSError, ValueError):  # no folder, or not ours to look into
        return []
    if not MODEL_FILES.intersection(entry.name for entry in entries):
        return []
    return [Path(entry.path) for entry in entries if entry.is_symlink()]
