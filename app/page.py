"""What every part of one page is built from."""

from dataclasses import dataclass
from pathlib import Path

from app.chat import ChatProcess
from app.look import Look
from app.roots import Roots
from app.text import Text


@dataclass(frozen=True)
class Page:
    """One language's page. `model`, `dataset`: chosen when it opens. `roots`: where paths of the browser's may lead."""

    text: Text
    model: str
    data_dir: Path
    dataset: str
    runs_dir: Path
    chat: ChatProcess
    roots: Roots
    look: Look
