"""Only the routes that the page needs are open, even to who has the token. Pure ASGI, behind the gate.

The library brings many more (uploads, files by their path, a proxy, recordings, editing by a model): all of them answer
404, and so does whatever its next version brings.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from trainer.problems import LANGUAGES

_API = r"gradio_api/(?:app_id|startup-events|heartbeat/[^/]+|queue/join|queue/data|run/predict|cancel|reset)"
_PAGE = rf"(?:|config|theme\.css|favicon\.ico|static/.+|assets/.+|{_API})/?"
_FILES = r"/files/(?:upload|example/[^/]+)"  # ours: app/upload_routes.py
OPEN = re.compile(rf"/(?:favicon\.ico)?|{_FILES}|/(?:{'|'.join(LANGUAGES)})(?:/{_PAGE})?")


class OpenRoutes:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 4404})
        else:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})


def is_open(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return OPEN.fullmatch(path) is not None and ".." not in path.split("/")
