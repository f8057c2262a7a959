"""`{{name}}` in a dataset: found, and filled when samples are prepared; the file stays as it is. Light: no torch.

A name is letters of any script, digits, _ and -, with spaces only in its middle, so that `{{ user.name }}` of a template
and `{{}}` of code are none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.records import Record

_PLACEHOLDER = re.compile(r"\{\{ *([\w-]+(?: +[\w-]+)*) *\}\}")


def find(records: "Iterable[Record]") -> Counter[str]:
    """How often each placeholder stands in `records`."""
    found: Counter[str] = Counter()
    for record in records:
        for part in (record.messages, record.rejected):
            for message in part:
                for text in _texts(message):
                    if "{{" in text:
                        found.update(_PLACEHOLDER.findall(text))
    return found


def fill(record: "Record", values: Mapping[str, str]) -> "Record":
    """`record` with the placeholders of `values` filled in; the others, and `raw`, stay."""
    if not values:
        return record
    return replace(record, messages=tuple(_filled(message, values) for message in record.messages),
                   rejected=tuple(_filled(message, values) for message in record.rejected))  # fmt: skip


def _texts(value: Any) -> Iterator[str]:
    """Every text in a message, those in the arguments of calls too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), value) if "{{" in value else value
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list) else value
