"""How events are wired whose answer comes at once."""

from typing import Any

# No spinner, and a plain request instead of Gradio's queue. The queue's stream closes when an event ends, and the server
# then forgets what the same tab has asked a moment before: clicks were lost.
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
