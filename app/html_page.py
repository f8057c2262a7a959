"""The HTML that Gradio wraps its pages in, changed where it would name an address that only the server believes in."""

import re

from gradio.routes import templates
from jinja2 import ChoiceLoader, DictLoader

from app.theme import ASSETS

TEMPLATE = "frontend/index.html"
CONFIG = "window.gradio_config = {{ config | toorjson }};"
# The address in the address bar is the one that works, whatever proxies and forwarded ports lie between.
ROOT = "new URL('.', window.location.href).toString().replace(/\\/$/, '')"
WITHOUT_ROOT = "dict(config, root='') |"
ICON_MANIFEST = '<link rel="manifest" href="/manifest.json" />'
# Run before Gradio's own.
SCRIPTS = ("streams.js", "statuses.js")
SOCIAL = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*/>')


def mend() -> None:
    """Takes effect for every page of this process. Raises AssertionError for a Gradio whose template is another one."""
    assert templates.env.loader
    source, _, _ = templates.env.loader.get_source(templates.env, TEMPLATE)
    if "tunedesk" in source:
        return
    script = "".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    replaced = {
        CONFIG: f"{CONFIG.replace('config |', WITHOUT_ROOT)} window.gradio_config.root = {ROOT}; {{% raw %}}/* tunedesk */\n{script}{{% endraw %}}",
        "const root = {{ config.get('root', '') | toorjson }};": "const root = window.gradio_config.root;",
        ICON_MANIFEST: "",  # of the host's top, which may be someone else's page
    }
    for old, new in replaced.items():
        assert source.count(old) == 1, f"Gradio's page has changed: {old}"
        source = source.replace(old, new)
    # Bound into the environment: what is compiled already is asked for again.
    templates.env.loader = ChoiceLoader([DictLoader({TEMPLATE: SOCIAL.sub("", source)}), templates.env.loader])
    if templates.env.cache is not None:
        templates.env.cache.clear()
