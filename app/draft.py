"""The form as a browser tab keeps it: through a reload and a change of language, each tab its own.

assets/page.js keeps the values in the tab's sessionStorage; what comes back is checked here, for it may be
of another version of the page, or of a machine whose lists have changed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from app.page import Page
from app.top_bar import QUIET

MOST_CHARACTERS = 1_000_000


class Draft:
    """`components`: what is kept, by name. `carrier`: brings the kept text to the server when the page opens."""

    def __init__(self, page: Page, components: Mapping[str, Any]) -> None:
        self.components = dict(components)
        self.carrier = gr.Textbox(visible=False)
        # A page that was started with another model or other folders begins anew.
        started_with = json.dumps([page.model, str(page.data_dir), page.dataset, str(page.runs_dir)])
        self._key = f"tunedesk-form-{hashlib.sha256(started_with.encode()).hexdigest()[:12]}"
        gr.on(
            [component.change for component in self.components.values()],
            None,
            list(self.components.values()),
            None,
            js=f"(...values) => tunedesk.changed({json.dumps(self._key)}, {json.dumps(list(self.components))}, values)",
            trigger_mode="always_last",
            **QUIET,
        )

    def reading(self, *others: "Kept") -> str:
        """The script of an event whose inputs are `carrier` and the components of `others`: it hands over what is kept."""
        return f"() => [{', '.join([f'tunedesk.kept({json.dumps(self._key)})', *(one.reading for one in others)])}]"

    def values(self, kept: str) -> dict[str, Any]:
        """The kept values that the components can still show, by name."""
        try:
            found = json.loads(kept or "") if len(kept or "") <= MOST_CHARACTERS else None
        except (ValueError, RecursionError):
            return {}
        if not isinstance(found, dict):
            return {}
        shown = {name: _shown(component, found.get(name)) for name, component in self.components.items()}
        return {name: value for name, value in shown.items() if value is not None}


class Kept:
    """One text that outlives a reload, in a `component` that nobody sees. `shared`: by all tabs, else each has its own."""

    def __init__(self, name: str, shared: bool = False) -> None:
        # In the page, unlike what is not visible: only there does a change make itself known.
        self.component = gr.Textbox("", visible="hidden", max_lines=1)
        self._where = f"{json.dumps(f'tunedesk-{name}')}, {json.dumps(shared)}"
        key, _, last = self._where.partition(", ")
        self.component.change(None, self.component, None, js=f"(text) => tunedesk.keep({key}, text, {last})", **QUIET)

    @property
    def reading(self) -> str:
        return f"tunedesk.kept({self._where})"


def _shown(component: Any, value: Any) -> Any:
    """`value` if `component` can show it, of a list what it can show; None if not."""
    if isinstance(component, gr.Checkbox):
        return value if isinstance(value, bool) else None
    if not isinstance(component, gr.Dropdown):
        return value if isinstance(value, str) else None
    known = None if component.allow_custom_value else {choice for _, choice in component.choices}
    if component.multiselect:
        names = value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None
        return names if names is None or known is None else [name for name in names if name in known]
    return value if isinstance(value, str) and (known is None or value in known) else None
