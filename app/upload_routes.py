"""Two routes beside Gradio's: a dataset file on its way here, and the bundled examples on their way out.

Gradio's own upload writes whatever comes to a temporary folder before anyone can look at it; it stays closed.
"""

import asyncio
import shutil
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import ClientDisconnect

from app import dataset_upload
from app.arguments import PROJECT
from trainer.dataset_files import INFO
from trainer.problems import LANGUAGES, Problem, quoted

MOST_AT_ONCE = 4
WRITE_BYTES = 2**20
EXAMPLES = PROJECT / "data"


def examples() -> list[Path]:
    """The files of the bundled datasets."""
    if not EXAMPLES.is_dir():
        return []
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".json", ".jsonl") and path.name != INFO)


def add_upload_routes(api: FastAPI, runs_dir: Path) -> None:
    free = asyncio.Semaphore(MOST_AT_ONCE)

    # PUT: the only requests with a body that app/event_bodies.py does not hold in memory.
    @api.put("/files/upload")
    async def upload(request: Request, name: str = "") -> Response:
        try:
            if free.locked():
                raise Problem("upload_busy", count=MOST_AT_ONCE)
            async with free:
                return JSONResponse({"id": await _receive(request, runs_dir, name)})
        except Problem as problem:
            return JSONResponse({language: problem.sentence(language) for language in LANGUAGES}, status_code=422)

    @api.get("/files/example/{name}")
    def example(name: str) -> Response:
        found = next((path for path in examples() if path.name == name), None)
        return FileResponse(found, filename=found.name) if found else Response(status_code=404)


async def _receive(request: Request, runs_dir: Path, name: str) -> str:
    """The id of what was received. Raises Problem; then nothing of it is kept."""
    announced = request.headers.get("content-length", "0")
    size = int(announced) if announced.isdecimal() and len(announced) < 16 else 0
    await asyncio.to_thread(dataset_upload.remove_old, runs_dir)
    number, path = await asyncio.to_thread(dataset_upload.begin, runs_dir, name, size)
    kept = False
    try:
        received = await _write(request, path)
        if not received:
            raise Problem("upload_empty", name=quoted(path.name))
        kept = True
    except (ClientDisconnect, OSError) as error:
        detail = error.strerror if isinstance(error, OSError) else None
        if detail:
            raise Problem("upload_unwritable", path=str(path.parent), detail=detail) from None
        raise Problem("upload_broken", name=quoted(path.name)) from None
    finally:
        if not kept:
            shutil.rmtree(path.parent, ignore_errors=True)
    return number


async def _write(request: Request, path: Path) -> int:
    received, buffered = 0, bytearray()
    with path.open("xb") as file:
        async for part in request.stream():
            received += len(part)
            buffered += part
            dataset_upload.check_size(path.name, received)
            if len(buffered) >= WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(buffered))
                buffered.clear()
        await asyncio.to_thread(file.write, bytes(buffered))
    return received
