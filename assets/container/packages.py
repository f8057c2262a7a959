"""What the image installs: `python packages.py npu|cuda|cpu FOLDER` writes torch.txt, requirements.txt, constraints.txt.

Needs nothing but Python 3.11. The versions are those of constraints.txt, but for what VARIANTS says; torch comes apart
from the rest, because its builds come from different places.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tomllib

PROJECT = Path(__file__).resolve().parent.parent.parent
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Variant:
    """`extras`: of pyproject.toml. `versions`: other ones than constraints.txt has. `torch_index`: where the build of
    torch comes from; "": from where everything else does."""

    extras: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    torch_index: str = CPU_BUILDS


VARIANTS = {
    # The newest pair that is published for CANN 9.1.0. The registry's torch would bring NVIDIA's libraries.
    "npu": Variant(("npu",), ("torch==2.12.0", "torch-npu==2.12.0")),
    "cuda": Variant(("quant",), torch_index=""),
    "cpu": Variant(),
}


def constraints(variant: Variant) -> list[str]:
    own = {_name(line) for line in variant.versions}
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "==" in line and _name(line) not in own] + list(variant.versions)


def requirements(variant: Variant) -> list[str]:
    """What pyproject.toml asks for, and setuptools, which registers the project."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    chosen = [line for extra in variant.extras for line in project["project"]["optional-dependencies"][extra]]
    return [*project["project"]["dependencies"], *chosen, *project["build-system"]["requires"]]


def torch(variant: Variant, index: str = "") -> list[str]:
    """`index`: instead of the variant's own."""
    index = index or variant.torch_index
    pinned = [line for line in constraints(variant) if _name(line) == "torch"]
    return [*([f"--index-url {index}"] if index else []), *pinned]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def main(name: str, folder: Path) -> None:
    if name not in VARIANTS:
        sys.exit(f"VARIANT={name} is not known. Choose one of {', '.join(VARIANTS)}.")
    variant = VARIANTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    files = {"torch": torch(variant, os.environ.get("TORCH_INDEX", "")), "requirements": requirements(variant),
             "constraints": constraints(variant)}  # fmt: skip
    for stem, lines in files.items():
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
