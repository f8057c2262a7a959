"""Downloads from Hugging Face's hub or a mirror of it into its own cache. Needs huggingface_hub; no torch.

huggingface_hub 2.4 begins every file anew after an interruption (its temporary files bear a random name), so the large
ones are fetched here, with Range, into the place where its snapshot_download then finds them.
"""

import glob
import hashlib
import os
import time
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

import httpx
import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers

TIMEOUT_S = 5.0
# How long a connection may bring nothing, and how often in a row.
STALLED_S, MOST_FAILURES = 20.0, 4
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
    with WeakFileLock(lock):  # as the hub's own tools take it
        for _ in range(2):
            if target.exists():
                return
            _until_whole(
                _url(asked, found.commit, file.name), partial, file.size, build_hf_headers(token=_token(asked))
            )
            if _sha256(partial) == file.sha256:
                partial.replace(target)
                return
            partial.unlink()
    raise Problem("download_corrupt", file=file.name, address=asked.address)


def _until_whole(url: str, partial: Path, size: int, headers: dict[str, str]) -> None:
    """Appends to `partial` until it has `size` bytes. Raises httpx.HTTPError when the connection breaks again and again
    without bringing anything, OSError when the disk does not take it."""
    failures, here = 0, partial.stat().st_size if partial.exists() else 0
    while here != size:
        try:
            _append(url, partial, 0 if here > size else here, headers)
            error = None
        except httpx.TransportError as one:
            error = one
        before, here = here, partial.stat().st_size if partial.exists() else 0
        failures = 0 if here > before else failures + 1
        if failures >= MOST_FAILURES:
            raise error or httpx.ReadError(f"{here} of {size} bytes came")
        time.sleep(min(failures, 3) if error else 0)


def _append(url: str, partial: Path, begun: int, headers: dict[str, str]) -> None:
    """One request for what `partial` lacks after `begun` bytes; what comes is on the disk at once."""
    asked = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    with (
        partial.open("ab", buffering=0) as stream,
        httpx.stream("GET", url, headers=asked, follow_redirects=True, timeout=STALLED_S) as answer,
    ):
        if answer.status_code == 416:
            stream.truncate(0)
            return
        answer.raise_for_status()
        continued = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        stream.truncate(begun if continued else 0)  # a server that knows no ranges begins anew
        for chunk in answer.iter_raw():
            while chunk:  # a disk that is nearly full takes a part, and refuses the rest
                chunk = chunk[stream.write(chunk) :]


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
    if isinstance(error, httpx.HTTPStatusError):
        return _refused(error.response.status_code, about)
    if isinstance(error, httpx.HTTPError | httpx2.HTTPError) or "Consistency check failed" in str(error):
        return Problem("download_broken_off", **about, detail=_first_line(error))
    if isinstance(error, UnicodeEncodeError):  # of the headers, only the token is the user's
        return Problem("download_token", **about)
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
