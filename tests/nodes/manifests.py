"""The Kubernetes manifests as data: documents, pods, and what a container is given when the cluster starts it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "assets" / "kubernetes"
PAGE, JOB, VOLCANO = "tunedesk.yaml", "multi-node.yaml", "volcano.yaml"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / file).read_text(encoding="utf-8")))


def one(file: str, kind: str) -> dict[str, Any]:
    [found] = [document for document in documents(file) if document["kind"] == kind]
    return found


def pod(document: dict[str, Any]) -> dict[str, Any]:
    """The pod that a Deployment, a Job or Volcano's Job makes."""
    spec = document["spec"]
    template = spec["template"] if "template" in spec else spec["tasks"][0]["template"]
    found: dict[str, Any] = template["spec"]
    return found


def containers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod(document).get("initContainers", [])
    yield from pod(document)["containers"]


def environment(container: dict[str, Any], index: int = 0) -> dict[str, str]:
    """What pod number `index` of a Job finds in its environment, of what the manifest sets."""
    found = {}
    for one in container["env"]:
        if "value" in one:
            found[one["name"]] = one["value"]
        elif one["valueFrom"].get("fieldRef", {}).get("fieldPath") == INDEX:
            found[one["name"]] = str(index)
    return found


def arguments(container: dict[str, Any], environment: dict[str, str]) -> list[str]:
    """The container's words, $(NAME) replaced as the cluster does; a name that is not set stays as it is written."""
    return [
        re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), word) for word in container["args"]
    ]


def job_pod(index: int, **changed: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of pod `index` of the Indexed Job. `changed`: variables, as a person changes them."""
    [container] = pod(one(JOB, "Job"))["containers"]
    found = environment(container, index) | changed
    return arguments(container, found), found


def readme(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """The lines of a text's sh blocks, without comments."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    return [bare for line in lines if (bare := line.partition("  #")[0].strip()) and not bare.startswith("#")]


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))
