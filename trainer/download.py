"""What a download is: what is asked for, its folder below the runs, its plan and its lock. Light: no hub's library.

runs/_downloads/NAME/  request.json  run.json  events.jsonl  plan.json  download.log; the model goes into the hub's own
cache. Like a run's, its state is derived from these files.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from trainer import hub_caches, run_folder
from trainer.download_reach import HUBS, Hub
from trainer.events import read_events
from trainer.plain_file import read_plain
from trainer.problems import Problem, quoted

FOLDER, REQUEST, PLAN, LOG = "_downloads", "request.json", "plan.json", "download.log"
EXAMPLE = "Qwen/Qwen2.5-0.5B-Instruct"
LABELS: dict[str, dict[str, str]] = {
    "hub": {"en": "Hub name", "zh": "模型下载源"},
    "model": {"en": "Model id", "zh": "模型编号"},
    "endpoint": {"en": "Mirror address", "zh": "镜像地址"},
    "revision": {"en": "Revision", "zh": "版本"},
}
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_MOST_ADDRESS = 300
# The threads of a process that was ended may hold its lock for a moment more.
LOCK_WAIT_S = 0.5

# One file of weights after another is what slow links like; a few at a time is what fast ones need.
WORKERS = 4
# Directly in the model's folder; what lies deeper is the same in other formats (original/, onnx/).
_WANTED = re.compile(r"[^/]+\.(safetensors|json|jinja|model|txt|tiktoken|py|yaml)")


@dataclass(frozen=True)
class Wanted:
    """`revision` "": the hub's main one. `endpoint` "": the hub's own address, or what the environment names."""

    hub: str
    model: str
    revision: str = ""
    endpoint: str = ""

    @property
    def about(self) -> Hub:
        return HUBS[self.hub]

    @property
    def address(self) -> str:
        return self.endpoint or self.about.address()

    @property
    def cache(self) -> Path:
        return hub_caches.hugging_face_cache() if self.hub == "huggingface" else hub_caches.model_scope_cache()

    @property
    def folder_name(self) -> str:
        revision = f"--{self.revision.replace('/', '~')}" if self.revision else ""
        return f"{self.hub}--{self.model.replace('/', '--')}{revision}"


def wanted(hub: str, model: str, revision: str = "", endpoint: str = "") -> Wanted:
    """What the words that a person typed ask for. Raises Problem."""
    hub, model, revision, endpoint = (text.strip() for text in (hub, model, revision, endpoint))
    if hub not in HUBS:
        raise Problem("setting_choice", label=LABELS["hub"], value=quoted(hub), choices=", ".join(HUBS))
    if not hub_caches.is_id(model):
        raise Problem("download_id", label=LABELS["model"], value=quoted(model), example=EXAMPLE)
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise Problem("download_revision", label=LABELS["revision"], value=quoted(revision))
    return Wanted(hub, model, revision, _endpoint(endpoint))


def _endpoint(typed: str) -> str:
    if not typed:
        return ""
    address = typed if "://" in typed else f"https://{typed}"
    try:
        parts = urlsplit(address)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    # Credentials in it would be written down; the form of the rest would change what is asked.
    if not well or set("@?#\\ ") & set(address) or len(address) > _MOST_ADDRESS or not address.isprintable():
        shown = typed.rsplit("@", 1)[-1]
        raise Problem("download_endpoint", label=LABELS["endpoint"], value=quoted(shown))
    return address.rstrip("/")


def chosen(names: list[str]) -> list[str]:
    """Of a repository's files those that loading needs: safetensors once, tokenizer, config; never a pickle."""
    found = [name for name in names if _WANTED.fullmatch(name)]
    weights = [name for name in found if name.endswith(".safetensors")]
    # Mistral's own format, of the same weights.
    doubled = [name for name in weights if name.startswith("consolidated")]
    return [name for name in found if name not in doubled] if len(doubled) < len(weights) else found


@dataclass(frozen=True)
class File:
    """A file of `size` bytes that becomes `target`; until it is whole it lies at `partial`. `link`: a further name of it
    in the snapshot. `had`: it was there before this download."""

    name: str
    size: int
    target: str
    partial: str
    link: str = ""
    sha256: str = ""
    had: bool = False

    def here(self) -> int:
        """Bytes of it that have arrived."""
        for path in (self.target, self.partial):
            try:
                return min(os.stat(path).st_size, self.size)
            except OSError:
                continue
        return 0


@dataclass(frozen=True)
class Plan:
    """`repository`: the model's folder in the cache. `fresh`: it was not there before. `previous`: what its refs/main said
    before, None where there is none."""

    model: str
    repository: str
    snapshot: str
    commit: str
    files: tuple[File, ...]
    fresh: bool
    fresh_snapshot: bool
    previous: str | None = None

    @property
    def total(self) -> int:
        return sum(file.size for file in self.files)

    def here(self) -> int:
        return sum(file.here() for file in self.files)


def folder_of(runs_dir: Path, asked: Wanted) -> Path:
    return runs_dir / FOLDER / asked.folder_name


def write_request(folder: Path, asked: Wanted) -> None:
    """Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_whole(folder / REQUEST, json.dumps(asdict(asked)) + "\n")


def read_request(folder: Path) -> Wanted | None:
    """What the download in `folder` is of; None when that cannot be read, or is nothing that may be asked."""
    values = _json(folder / REQUEST)
    try:
        return wanted(*(str(values.get(key, "")) for key in ("hub", "model", "revision", "endpoint")))
    except Problem:
        return None


def write_plan(folder: Path, plan: Plan) -> Plan:
    """Keeps the first plan of a download, which knows what was there before it. Returns that with today's files."""
    if before := read_plan(folder):
        had = {file.name for file in before.files if file.had}
        if before.commit == plan.commit and before.repository == plan.repository:
            files = tuple(File(**(asdict(file) | {"had": file.name in had})) for file in plan.files)
            plan = Plan(**(_fields(plan) | {"files": files, "fresh": before.fresh, "fresh_snapshot": before.fresh_snapshot,
                                            "previous": before.previous}))  # fmt: skip
    run_folder.write_whole(folder / PLAN, json.dumps(_fields(plan) | {"files": [asdict(file) for file in plan.files]}))
    return plan


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


def read_plan(folder: Path) -> Plan | None:
    values = _json(folder / PLAN)
    try:
        return Plan(**{**values, "files": tuple(File(**file) for file in values["files"])})
    except (TypeError, KeyError):
        return None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def take_lock(asked: Wanted) -> IO[str]:
    """The lock on the model's download into this cache, held until the file and those who inherit it are gone.

    Raises Problem when another holds it, or the cache cannot be written to.
    """
    place = asked.cache / ".locks"
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / f"tunedesk--{asked.model.replace('/', '--')}.lock",
                             os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)  # fmt: skip
    except OSError as error:
        raise Problem("download_unwritable", path=str(asked.cache), detail=error.strerror,
                      variable=asked.about.cache) from None  # fmt: skip
    file = os.fdopen(descriptor, "r")
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > until:
                file.close()
                raise Problem("download_in_use", name=asked.model) from None
            time.sleep(0.02)


def ended(folder: Path) -> bool:
    """Whether the last event in `folder` says how a download ended."""
    events, _ = read_events(folder / run_folder.EVENTS)
    return bool(events) and events[-1]["event"] == "finished"


def remove_arrived(asked: Wanted, plan: Plan) -> None:
    """Removes what this download has brought, and nothing that was there before it. Raises OSError."""
    repository, cache = Path(plan.repository).resolve(), asked.cache.resolve()
    if repository == cache or not repository.is_relative_to(cache) or not repository.is_dir():
        return  # no plan of ours, or nothing there
    snapshot = Path(plan.snapshot)
    others = [one for one in (snapshot.parent.iterdir() if snapshot.parent.is_dir() else ()) if one != snapshot]
    if plan.fresh and not others:
        shutil.rmtree(repository)
        return
    for file in plan.files:
        for path in (Path(file.partial), *(Path(one) for one in (file.link, file.target) if one and not file.had)):
            if path.parent.resolve().is_relative_to(repository):
                path.unlink(missing_ok=True)
    if plan.fresh_snapshot and snapshot.resolve().is_relative_to(repository) and snapshot.resolve() != repository:
        shutil.rmtree(snapshot, ignore_errors=True)
    if plan.previous and (main := repository / "refs" / "main").is_file():
        run_folder.write_whole(main, plan.previous)


def size_words(size: float) -> str:
    """Bytes for people, in powers of ten as the hubs count."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
