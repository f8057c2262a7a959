"""Several replies to one question: those that can are written side by side, a piece each in turn; the others after them.

Light: no torch.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trainer.model_folder import check_adapter_folder, is_whole_model
from trainer.problems import Problem

MOST_COLUMNS = 3
# An adapter, None for the bare base, or why there is no answer.
Column = Path | None | Exception
Part = TypeVar("Part")


def in_turn(
    replies: Sequence[Generator[Part, None, None]], alone: Sequence[bool]
) -> Iterator[tuple[int, Part | Exception]]:
    """The parts of `replies`, each with its reply's number; `alone`: those that cannot be written beside another.

    A reply that fails gives its error as its last part, and the others go on.
    """
    groups = [[number for number, by_itself in enumerate(alone) if not by_itself]]
    groups += [[number] for number, by_itself in enumerate(alone) if by_itself]
    try:
        for running in groups:
            while running:
                for number in list(running):
                    try:
                        yield number, next(replies[number])
                    except StopIteration:
                        running.remove(number)
                    except GeneratorExit:
                        raise
                    except Exception as error:
                        running.remove(number)
                        yield number, error
    finally:
        for reply in replies:
            reply.close()


def failing(error: Exception) -> Generator[Any, None, None]:
    """A reply that comes to nothing."""
    raise error
    yield


def columns_of(request: dict[str, Any], loaded: Path | None) -> list[Column]:
    """What `request` asks for in "columns": one to three of {"adapter": path or None, "messages": its own or none}; absent: the `loaded` adapter.

    What is wrong with one adapter stands in its place. Raises Problem chat_protocol.
    """
    asked = request.get("columns")
    if asked is None:
        return [loaded]
    if not isinstance(asked, list) or not 1 <= len(asked) <= MOST_COLUMNS:
        raise Problem("chat_protocol", detail="columns")
    return [_column(value) for value in asked]


def messages_of(request: dict[str, Any], count: int) -> list[Any]:
    """What each of `count` columns is asked: its own "messages", where it has gone on with its own answers, else the
    request's."""
    columns = request.get("columns") or [{}] * count
    return [column.get("messages") or request.get("messages") or [] for column in columns]


def _column(value: Any) -> Column:
    if not isinstance(value, dict) or not isinstance(value.get("adapter", 0), str | None):
        raise Problem("chat_protocol", detail="columns")
    try:
        return None if value["adapter"] is None else _adapter(value["adapter"])
    except Problem as problem:
        return problem


def _adapter(path: str) -> Path:
    if is_whole_model(path):
        raise Problem("chat_column_model", path=path)
    return check_adapter_folder(path)
