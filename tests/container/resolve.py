"""Whether what the image installs can be had: `python -m tests.container.resolve` asks pip's resolver, in dry runs.

For each variant, linux/arm64 and linux/amd64, Python 3.11 and 3.12, wheels only. The registry's torch wants NVIDIA's
libraries; the npu and cpu variants take the CPU build, which other places offer. So the registry is asked whether it has
torch of that version for the platform, and the rest is resolved around a stand-in with the CPU build's requirements,
which are the same without NVIDIA's and Triton. pip judges markers by the Python that it runs in, so the set that it finds
is judged once more by the markers of the one aimed at.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.container.test_image import packages

MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
PYTHONS = ("3.11", "3.12")
# Of the oldest C library among the bases, Ubuntu 22.04's 2.35.
GLIBCS = (17, *range(24, 36))
NVIDIAS = ("nvidia", "cuda", "triton")


@dataclass(frozen=True)
class Target:
    variant: str
    machine: str
    python: str

    def arguments(self) -> list[str]:
        """pip's, for its dry run."""
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in GLIBCS]
        tags += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        words = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--python-version", self.python]
        return [*words, "--target", "none", *(word for tag in tags for word in ("--platform", tag))]

    def environment(self) -> dict[str, str]:
        """As markers see it."""
        return {"python_version": self.python, "python_full_version": f"{self.python}.9", "sys_platform": "linux",
                "platform_machine": self.machine, "platform_system": "Linux", "os_name": "posix",
                "implementation_name": "cpython", "platform_python_implementation": "CPython"}  # fmt: skip


class Unresolved(Exception):
    """What pip's resolver says instead of a set of packages."""


def report(target: Target, words: list[str], folder: Path) -> list[dict[str, Any]]:
    """The packages that pip would install. Raises Unresolved."""
    file = folder / "report.json"
    done = subprocess.run([sys.executable, "-m", "pip", "install", *target.arguments(), "--report", str(file), *words],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise Unresolved("\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")))
    return [item["metadata"] for item in json.loads(file.read_text())["install"]]


def stand_in(folder: Path, version: str, requires: list[str]) -> str:
    """A wheel with nothing but the metadata of torch's CPU build; returns its requirement."""
    name = f"torch-{version}+cpu"
    lines = [
        "Metadata-Version: 2.1",
        "Name: torch",
        f"Version: {version}+cpu",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    return f"torch=={version}+cpu"


def missing(target: Target, found: list[dict[str, Any]]) -> list[str]:
    """What the packages of `found` require on `target`, by its markers, that is not among them."""
    versions = {canonicalize_name(one["name"]): one["version"] for one in found}
    absent = []
    for one in found:
        for requirement in map(Requirement, one.get("requires_dist", [])):
            if requirement.marker and not requirement.marker.evaluate({**target.environment(), "extra": ""}):
                continue
            version = versions.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                absent.append(f"{one['name']} requires {requirement}, found {version}")
    return absent


def resolve(target: Target, folder: Path, without_nvidia: bool = False) -> list[dict[str, Any]]:
    """The set of packages for `target`; `without_nvidia`: all but the libraries that torch's CUDA build brings. Raises
    Unresolved."""
    module = packages()
    variant = module.VARIANTS[target.variant]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(module.constraints(variant)) + "\n")
    words = ["-c", str(constraints), *module.requirements(variant)]
    if variant.torch_index or without_nvidia:
        pinned = next(line for line in module.torch(variant) if line.startswith("torch=="))
        metadata = report(target, ["--no-deps", pinned], folder)[0]
        kept = [one for one in metadata["requires_dist"] if not one.startswith(NVIDIAS)]
        words += ["--find-links", str(folder), stand_in(folder, metadata["version"].split("+")[0], kept)]
    found = report(target, words, folder)
    if absent := missing(target, found):
        raise Unresolved("\n".join(absent))
    return found


def main(argv: list[str]) -> int:
    """Prints a line a target; 1 when one cannot be resolved."""
    parser = argparse.ArgumentParser("python -m tests.container.resolve")
    parser.add_argument("variants", nargs="*", default=["npu", "cpu", "cuda"])
    parser.add_argument("--names", action="store_true", help="print each package and its version")
    parser.add_argument("--without-nvidia", action="store_true",
                        help="for cuda: where the registry lacks the libraries that torch's CUDA build brings")  # fmt: skip
    arguments = parser.parse_args(argv)
    failed = False
    for variant in arguments.variants:
        for machine in MACHINES.values():
            for python in PYTHONS:
                target = Target(variant, machine, python)
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        found = resolve(target, Path(folder), arguments.without_nvidia)
                    except Unresolved as error:
                        failed = True
                        print(f"{variant} linux/{machine} Python {python}: NOT RESOLVED\n  {error}", flush=True)
                        continue
                named = {canonicalize_name(one["name"]): one["version"] for one in found}
                torches = ", ".join(f"{name} {version}" for name, version in named.items() if name.startswith("torch"))
                print(f"{variant} linux/{machine} Python {python}: {len(found)} wheels, {torches}", flush=True)
                if arguments.names:
                    print("  " + " ".join(f"{name}=={version}" for name, version in sorted(named.items())), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
