"""Downloads from ModelScope into its own cache. Needs modelscope_hub, which modelscope's own snapshot_download calls:
modelscope itself would import torch for seconds. It resumes files by itself.
"""

import json
import os
from pathlib import Path

from trainer import hub_caches
from trainer.download import WORKERS, File, Plan, Wanted, chosen
from trainer.download_reach import sends_token
from trainer.problems import Problem

# Before the library reads them: it would try a silent hub for a minute.
for _name, _value in {"MODELSCOPE_API_TIMEOUT": "8", "MODELSCOPE_API_CONNECT_TIMEOUT": "5", "MODELSCOPE_API_MAX_RETRIES": "1",
                      "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "2", "MODELSCOPE_DOWNLOAD_TIMEOUT": "20",
                      "TQDM_DISABLE": "1"}.items():  # fmt: skip
    os.environ.setdefault(_name, _value)

import requests  # noqa: E402
from modelscope_hub import HubApi, HubConfig  # noqa: E402
from modelscope_hub.errors import (  # noqa: E402
    APIError,
    AuthenticationError,
    FileDownloadError,
    FileIntegrityError,
    HubError,
    NetworkError,
    NotExistError,
    PermissionDeniedError,
)

MAIN = "master"


def plan(asked: Wanted) -> Plan:
    """What is to be fetched. Raises Problem, or what `explained` explains."""
    api, revision = _api(asked), asked.revision or MAIN
    try:
        listed = api.list_repo_files(asked.model, "model", revision=revision)
    except NotExistError:
        if asked.revision:
            api.list_repo_files(asked.model, "model", revision=MAIN)
            raise Problem("download_no_revision", hub=asked.about.name, name=asked.model,
                          revision=asked.revision) from None  # fmt: skip
        raise
    entries = {entry.path: entry for entry in listed if not entry.is_dir}
    if not entries:
        raise ValueError("no files")
    repository, snapshot = _places(asked, revision)
    files = []
    for name in chosen(list(entries)):
        target = snapshot / name
        files.append(File(name, int(entries[name].size), str(target), f"{target}.incomplete",
                          sha256=entries[name].sha256 or "", had=target.exists()))  # fmt: skip
    return Plan(asked.model, str(repository), str(snapshot), revision, tuple(files), fresh=not repository.exists(),
                fresh_snapshot=not snapshot.exists())  # fmt: skip


def _places(asked: Wanted, revision: str) -> tuple[Path, Path]:
    """(repository, snapshot): in today's layout, unless an older one holds the model already, which is then completed."""
    today = asked.cache / "models" / asked.model.replace("/", "--")
    older = [folder for folder in hub_caches.folders_of(asked.model)
             if folder != today and folder.is_relative_to(asked.cache)]  # fmt: skip
    if older and not today.exists() and not asked.revision:
        return older[0], older[0]
    return today, today / "snapshots" / revision


def fetch(asked: Wanted, found: Plan) -> Path:
    """Brings what is missing; what has arrived stays, whatever happens. Returns the snapshot's folder."""
    older = found.snapshot if found.snapshot == found.repository else None
    return Path(_api(asked).download_repo(asked.model, "model", revision=asked.revision or None, cache_dir=asked.cache,
                                          local_dir=older, allow_patterns=[file.name for file in found.files],
                                          max_workers=WORKERS))  # fmt: skip


def explained(error: BaseException, asked: Wanted) -> Problem | None:
    """The sentence for what the hub or its library said; None when it is none of theirs."""
    about = {"hub": asked.about.name, "address": asked.address, "name": asked.model, "token": asked.about.token}
    detail = ((str(error).strip().splitlines() or [""])[0] or type(error).__name__)[:200]
    if isinstance(error, FileDownloadError):
        name, first = next(iter(error.failed_files.items()))
        if isinstance(first, FileIntegrityError):
            return Problem("download_corrupt", **about, file=name)
        return explained(first, asked)
    if isinstance(error, NotExistError):
        return Problem("download_no_model", **about)
    if isinstance(error, AuthenticationError):
        return Problem("download_token" if _token(asked) != "" and HubConfig().token else "download_no_model", **about)
    if isinstance(error, PermissionDeniedError):
        return Problem("download_gated", **about)
    if isinstance(error, UnicodeEncodeError):  # of the headers, only the token is the user's
        return Problem("download_token", **about)
    # No JSON comes from a network's login page, or from another server.
    if isinstance(error, json.JSONDecodeError) or isinstance(error.__cause__, json.JSONDecodeError):
        return Problem("download_not_understood", **about, detail=detail)
    if isinstance(error, NetworkError | requests.RequestException) or (isinstance(error, HubError) and error.retryable):
        return Problem("download_broken_off", **about, detail=detail)
    if isinstance(error, APIError):
        return Problem("download_refused", **about, status=f"HTTP {error.status_code}")
    if isinstance(error, ValueError | LookupError | TypeError | AttributeError | HubError):
        return Problem("download_not_understood", **about, detail=detail)
    return None


def _api(asked: Wanted) -> HubApi:
    return HubApi(token=_token(asked), endpoint=asked.address)


def _token(asked: Wanted) -> str | None:
    """None: that of the environment or of `modelscope login`. "": none."""
    return None if sends_token(asked.about, asked.address) else ""
