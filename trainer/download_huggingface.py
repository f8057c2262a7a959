"""Downloads from Hugging Face's hub or a mirror of it into its own cache. Needs huggingface_hub; no torch.

huggingface_hub 2.4 begins every file anew after an interruption (its temporary files bear a random name), so the large
ones are fetched here, with Range, into the place where its snapshot_download then finds them.
"""

import glob
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.download import WORKERS, File, Plan, Wanted, chosen
from trainer.download_reach import sends_token
from trainer.problems import Problem

# Before huggingface_hub reads them. Xet's own transfer neither resumes nor goes through mirrors.
os.environ.update(
    HF_HUB_OFFLINE="0", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1"
)

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.constants import MAX_HTTP_DOWNLOAD_SIZE
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers

TIMEOUT_S = 5.0
BLOCK_BYTES = 2**22


def plan(asked: Wanted) -> Plan:
    """What is to be fetched. Asks the hub three times, TIMEOUT_S each. Raises Problem, or what `explained` explains."""
    api = HfApi(endpoint=asked.address, token=_token(asked))
    info = api.model_info(asked.model, revision=asked.revision or None, timeout=TIMEOUT_S)
    commit = info.sha
    if not isinstance(commit, str) or not commit.isalnum():
        raise ValueError("no commit")
    entries = {entry.path: entry for entry in api.list_repo_tree(asked.model, revision=commit, recursive=True)
               if isinstance(entry, RepoFile)}  # fmt: skip
    names = chosen(list(entries))
    if names:  # a gated model's names may be seen by everyone
        get_hf_file_metadata(
            _url(asked, commit, names[0]), token=_token(asked), timeout=TIMEOUT_S, endpoint=asked.address
        )
    repository = asked.cache / f"models--{asked.model.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    return Plan(asked.model, str(repository), str(snapshot), commit,
                tuple(_file(entries[name], repository, snapshot) for name in names),
                fresh=not repository.exists(), fresh_snapshot=not snapshot.exists(),
                previous=_text(repository / "refs" / "main"))  # fmt: skip


def _file(entry: Any, repository: Path, snapshot: Path) -> File:
    sha256 = entry.lfs.sha256 if entry.lfs else ""
    target = repository / "blobs" / (sha256 or entry.blob_id)
    link = snapshot / entry.path
    # Where there are no symbolic links, the snapshot holds the file itself.
    whole = target.exists() or link.exists()
    return File(entry.path, entry.size, str(link if link.exists() and not target.exists() else target),
                f"{target}.incomplete", str(link), sha256, whole)  # fmt: skip


def fetch(asked: Wanted, found: Plan) -> Path:
    """Brings what is missing; what has arrived stays, whatever happens. Returns the snapshot's folder."""
    large = [file for file in found.files if file.sha256 and not os.path.exists(file.target)]
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(lambda file: _blob(asked, found, file), large):
            pass
    names = [glob.escape(file.name) for file in found.files]
    # By the name it was asked by, so that refs/main leads to it afterwards.
    return Path(snapshot_download(asked.model, revision=asked.revision or None, endpoint=asked.address,
                                  token=_token(asked), cache_dir=asked.cache, allow_patterns=names,
                                  max_workers=WORKERS))  # fmt: skip


def _blob(asked: Wanted, found: Plan, file: File) -> None:
    """Fetches `file`, from where an earlier attempt has left it. Raises Problem when it is not what was announced."""
    target, partial = Path(file.target), Path(file.partial)
    lock = asked.cache / ".locks" / Path(found.repository).name / f"{target.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers(token=_token(asked))
    with WeakFileLock(lock):
        for _ in range(2):
            if target.exists():
                return
            with partial.open("ab") as stream:
                if stream.tell() > file.size:
                    stream.truncate(0)
                # Above its limit http_get refuses to begin, though the hub serves such files too.
                size = file.size if file.size <= MAX_HTTP_DOWNLOAD_SIZE else None
                if (begun := stream.seek(0, os.SEEK_END)) < file.size:
                    http_get(_url(asked, found.commit, file.name), stream, resume_size=begun, headers=headers,
                             expected_size=size)  # fmt: skip
            if partial.stat().st_size == file.size and _sha256(partial) == file.sha256:
                partial.replace(target)
                return
            partial.unlink()
    raise Problem("download_corrupt", file=file.name, address=asked.address)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def explained(error: BaseException, asked: Wanted) -> Problem | None:
    """The sentence for what the hub or its library said; None when it is none of theirs."""
    about = {"hub": asked.about.name, "address": asked.address, "name": asked.model, "token": asked.about.token}
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return explained(error.__cause__, asked)
    if isinstance(error, RevisionNotFoundError):
        return Problem("download_no_revision", **about, revision=asked.revision or "main")
    if isinstance(error, GatedRepoError):
        return Problem("download_gated", **about)
    if isinstance(error, RepositoryNotFoundError):
        return Problem("download_no_model", **about)
    if isinstance(error, HfHubHTTPError):
        return _refused(error.response.status_code, about)
    if isinstance(error, httpx2.HTTPError) or "Consistency check failed" in str(error):
        return Problem("download_broken_off", **about, detail=_first_line(error))
    if isinstance(error, FileMetadataError | ValueError | LookupError | AssertionError | TypeError):
        return Problem("download_not_understood", **about, detail=_first_line(error))
    return None


def _refused(status: int, about: dict[str, str]) -> Problem:
    if status in (401, 403):
        return Problem("download_token" if status == 401 else "download_gated", **about)
    if status in (408, 429) or status >= 500:
        return Problem("download_broken_off", **about, detail=f"HTTP {status}")
    return Problem("download_refused", **about, status=f"HTTP {status}")


def _first_line(error: BaseException) -> str:
    return ((str(error).strip().splitlines() or [""])[0] or type(error).__name__)[:200]


def _token(asked: Wanted) -> bool | None:
    """None: that of the environment or of `hf auth login`. False: none."""
    return None if sends_token(asked.about, asked.address) else False


def _url(asked: Wanted, commit: str, name: str) -> str:
    return hf_hub_url(asked.model, name, revision=commit, endpoint=asked.address)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
