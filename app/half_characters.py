"""Half a character, which JSON and YAML can spell (\\ud800), cannot be sent: two halves become one, one the sign for none.

Wherever it came from: a data set, a settings file, another program's events, a model. Else no page could show anything.
"""

from typing import Any

import orjson


def whole(value: Any) -> Any:
    """`value`, its texts as they can be written."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list | tuple) else value


class _Writer:
    """orjson as Gradio's answers use it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(orjson, name)

    @staticmethod
    def dumps(content: Any, default: Any = None, option: int | None = None) -> bytes:
        try:
            return orjson.dumps(content, default=default, option=option)
        except TypeError as error:
            if "surrogates" not in str(error):
                raise
            return orjson.dumps(whole(content), default=default, option=option)


def mend() -> None:
    """Takes effect for every page of this process. Raises AttributeError for a Gradio that writes in another way."""
    from gradio import routes  # only once app/server.py has set what Gradio reads

    if not isinstance(routes.orjson, _Writer):
        routes.orjson = _Writer()
