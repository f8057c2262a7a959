"""What the Dockerfile says of the image, read so that the tests run what it runs."""

import json
import re
import shlex
from dataclasses import dataclass

from tests.conftest import ROOT

IN_IMAGE = "/opt/tunedesk"


@dataclass(frozen=True)
class Image:
    """Of the last stage; paths within the image lead to this checkout. `copied`: what `COPY . .` is to bring."""

    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    health: list[str]
    user: str
    port: int


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest of it), in order; continued lines are joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(words[0], words[2]) for line in joined.splitlines() if (words := line.strip().partition(" "))[0]]


def image() -> Image:
    found = instructions()
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    stage = found[last:]
    environment: dict[str, str] = {}
    for name, rest in stage:
        if name == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    health = re.search(r"CMD (\[.*\])", _one(stage, "HEALTHCHECK"))
    assert health
    return Image(environment, _words(_one(stage, "ENTRYPOINT")), _words(_one(stage, "CMD")), _words(health[1]),
                 _one(stage, "USER"), int(_one(stage, "EXPOSE")))  # fmt: skip


def _one(stage: list[tuple[str, str]], name: str) -> str:
    found = [rest for word, rest in stage if word == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def _words(text: str) -> list[str]:
    return [word.replace(IN_IMAGE, str(ROOT)) for word in json.loads(text)]
