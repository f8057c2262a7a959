"""A browser tab without a browser: it speaks what Gradio's own script speaks, so that twenty of them fit on a machine."""

import re
import secrets
from html import unescape
from typing import Any, cast
from urllib.parse import urlsplit

import httpx


class Tab:
    """Opened at the address that the page printed. Raises httpx.HTTPError or AssertionError when anything goes wrong."""

    def __init__(self, address: str, language: str = "zh") -> None:
        parts = urlsplit(address)
        base = f"{parts.scheme}://{parts.netloc}{parts.path}"
        # No proxy of the environment: the page is here.
        self._client = httpx.Client(base_url=base, follow_redirects=True, timeout=30, trust_env=False)
        self._hash = secrets.token_hex(6)
        self._api = f"{language}/gradio_api"
        assert self._client.get(f"?{parts.query}").status_code == 200
        assert self._client.get(f"{language}/").status_code == 200
        self._config = self._get(f"{language}/config")
        self._parts = {part["id"]: part for part in self._config["components"]}
        self.values = {number: part["props"].get("value") for number, part in self._parts.items()}
        for dependency in self._config["dependencies"]:
            if any(event == "load" for _, event in dependency["targets"]):
                self.fire(dependency)
        ticking = [
            dependency
            for dependency in self._config["dependencies"]
            for target, event in dependency["targets"]
            if event == "tick" and self._parts[target]["props"].get("active")
        ]
        # What follows runs fills the most; the other timers follow what a person has opened.
        self._ticking = max(ticking, key=lambda dependency: len(dependency["outputs"]))

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._client.get(path)
        answer.raise_for_status()
        return cast(dict[str, Any], answer.json())

    def close(self) -> None:
        self._client.close()

    def heartbeat(self) -> "httpx._client.Response":
        """The stream that Gradio keeps open for a tab; to be closed by the caller."""
        url = f"{self._api}/heartbeat/{self._hash}?stream={secrets.token_hex(16)}&from=0"
        return self._client.send(self._client.build_request("GET", url), stream=True)

    def tick(self) -> None:
        """What a tab asks each second."""
        self.fire(self._ticking)

    def click(self, elem_id: str) -> None:
        number = self._number(elem_id)
        found = [
            one for one in self._config["dependencies"] if [number, "click"] in one["targets"] and one["backend_fn"]
        ]
        assert found, elem_id
        for dependency in found[:1]:
            self.fire(dependency)

    def fire(self, dependency: dict[str, Any]) -> None:
        """One event: its inputs as they are here, its outputs taken over."""
        if not dependency["backend_fn"]:
            return
        request = {
            "data": [self._sent(number) for number in dependency["inputs"]],
            "event_data": None,
            "fn_index": dependency["id"],
            "trigger_id": next((target for target, _ in dependency["targets"]), None),
            "session_hash": self._hash,
        }
        answer = self._client.post(f"{self._api}/run/predict", json=request)
        assert answer.status_code == 200, answer.text[:500]
        for number, value in zip(dependency["outputs"], answer.json()["data"], strict=True):
            self._take(number, value)

    def _sent(self, number: int) -> Any:
        kind, value = self._parts[number]["type"], self.values[number]
        return None if kind == "state" else "" if kind == "textbox" and value is None else value

    def _take(self, number: int, value: Any) -> None:
        if isinstance(value, dict) and value.get("__type__") == "update":
            self._parts[number]["props"].update(value)
            if "value" in value:
                self.values[number] = value["value"]
        else:
            self.values[number] = value

    def _number(self, elem_id: str) -> int:
        found = [number for number, part in self._parts.items() if part["props"].get("elem_id") == elem_id]
        assert len(found) == 1, (elem_id, found)
        return found[0]

    def put(self, elem_id: str, value: Any) -> None:
        self.values[self._number(elem_id)] = value

    def shown(self) -> dict[str, Any]:
        """All values, by name or number."""
        return {
            str(self._parts[number]["props"].get("elem_id") or number): value for number, value in self.values.items()
        }

    def __getitem__(self, elem_id: str) -> Any:
        return self.values[self._number(elem_id)]

    def text(self, elem_id: str) -> str:
        """The words of a piece of HTML."""
        return unescape(" ".join(re.sub(r"<[^>]+>", " ", self[elem_id] or "").split()))
