"""What app/look.py is asked with: the settings that tokens depend on, and the state of the files that are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.form import plain
from app.look import Answer, Look, Values
from app.models import as_chosen
from app.roots import Roots
from trainer.dataset_files import INFO, find_source
from trainer.prepare import absolute
from trainer.problems import Problem
from trainer.settings import parse

LOOKED = ("model_name_or_path", "adapter_name_or_path", "template", "stage", "dataset_dir", "cutoff_len", "train_on_prompt",
          "mask_history", "skip_bad_rows", "placeholders", "literal_placeholders")  # fmt: skip
# They change what is trained on, but nothing that is looked at.
UNSEEN = {"adapter_name_or_path", "skip_bad_rows"}


def looked_at(typed: Mapping[str, Any], roots: Roots) -> Values:
    """The settings of `typed`, form values by key, as trainer.look takes them. Raises Problem or Problems."""
    roots.check_typed(typed)
    given = {key: plain(key, typed[key]) for key in LOOKED if key in typed}
    settings = absolute(parse(given))
    values = settings.model_dump(mode="json", include=set(LOOKED) - UNSEEN)
    values["model_name_or_path"] = as_chosen(settings.model_name_or_path, settings.adapter_name_or_path or "")[0]
    return values | {"trust_remote_code": roots.trust_remote_code}


def checked(look: Look, settings: Values, name: str, state: str) -> tuple[Answer, Problem | None]:
    """The check of a dataset; where the model cannot be used, that of its rows alone, and why."""
    answer = look.check(settings, name, state)
    if answer.problem is None or not settings["model_name_or_path"]:
        return answer, None
    return look.check(_rows_alone(settings), name, state), answer.problem


def _rows_alone(settings: Values) -> Values:
    return settings | {"model_name_or_path": "", "template": "auto"}


def steer(look: Look, settings: Values, name: str, state: str) -> None:
    """Stops the check that `checked` has begun, or forgets it where it has ended, so that it begins anew."""
    act = look.again if checked(look, settings, name, state)[0].ended else look.stop
    for asked in (settings, _rows_alone(settings)):
        act(asked, name, state)


def state_of(folder: Path, name: str) -> str:
    """Changes with the files of the dataset `name` in `folder`. Raises Problem for a dataset that is not there."""
    source = find_source(folder, name)
    return repr([_state(path) for path in (folder / INFO, *source.files)])


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size
