"""The page's server: one page a language behind one gate, all of it local, all of it under one path prefix."""
# ruff: noqa: E402  # the environment is set before gradio is imported

import os
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.roots import temporary_folder

# Set before gradio reads them: nothing is reported, nothing is fetched, files go to a folder of this user's own.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
# gradio opens an HTTP client while it is imported, which fails on a SOCKS proxy; the page itself asks no other host.
PROXIES = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
os.environ.setdefault("GRADIO_TEMP_DIR", temporary_folder())

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.types import ASGIApp

from app import fragments, half_characters, html_page, theme
from app.arguments import PROJECT
from app.chat import ChatProcess
from app.chat_tab import ChatTab
from app.draft import Draft, Kept
from app.event_bodies import EventBodies
from app.export_tab import ExportTab
from app.forwarded import Forwarded, Trusted, clean_prefix
from app.gate import Gate
from app.hosts import Hosts
from app.language import COOKIE, language_of
from app.look import Look
from app.open_routes import OpenRoutes
from app.page import Page
from app.roots import Roots
from app.runs_tab import RunsTab
from app.server_controls import LOCAL
from app.starting import unwritable
from app.streams import Streams
from app.text import Text
from app.top_bar import QUIET, TopBar
from app.train_tab import TrainTab
from app.upload_routes import add_upload_routes
from trainer.problems import LANGUAGES, Language

REFRESH_S = 1.0
os.environ.update(PROXIES)  # for the processes that are started from here
YEAR_S = 365 * 24 * 3600
QUEUE_LOOK_S = 0.02


def build(page: Page) -> gr.Blocks:
    """One language's page."""
    with gr.Blocks(title=page.text("title"), analytics_enabled=False, fill_width=False) as blocks:
        # Two tabs have two conversations, and follow one export.
        said, followed_export = Kept("conversation"), Kept("export", shared=True)
        kept, exported = said.component, followed_export.component
        if problem := unwritable(page.runs_dir):
            gr.HTML(
                fragments.notice_html(problem.sentence(page.text.language)),
                elem_id="unwritable",
                apply_default_css=False,
            )
        if page.roots.trust_remote_code:
            gr.HTML(fragments.notice_html(page.text("trusting")), elem_id="trusting", apply_default_css=False)
        top_bar = TopBar(page)
        with gr.Tabs() as tabs:
            with gr.Tab(page.text("tab.train"), id="train") as train_tab:
                train = TrainTab(page, top_bar)
            with gr.Tab(page.text("tab.chat"), id="chat"):
                chat = ChatTab(page, top_bar, kept)
            with gr.Tab(page.text("tab.export"), id="export"):
                export = ExportTab(page, top_bar, exported, tabs, chat)
            with gr.Tab(page.text("tab.runs"), id="runs"):
                RunsTab(page, train, tabs)
        seen = gr.State([])
        model, checkpoint = (top_bar.fields[key] for key in ("model_name_or_path", "adapter_name_or_path"))
        asked = [model, chat.server.engine, exported, train.shown, chat.status]
        followed = [
            *train.monitor.parts, chat.status, *export.followed, checkpoint, *chat.column_choices
        ]  # fmt: skip

        at_status = followed.index(chat.status)

        def follow(
            before: list[int], model: str, engine: str, target: str, shown: str = "", loaded: str = ""
        ) -> list[Any]:
            """Sends only what has changed since this tab's last tick. `loaded`: the chat's status as the tab shows it,
            which a click on Load has changed too: what it said may be over before the next tick, or come after it."""
            lists = [gr.update(choices=top_bar.checkpoints(model)), *chat.columns_offered(engine, model)]
            values = [*train.monitor.view(shown), chat.status_html(), *export.view(target), *lists]
            now = [hash(repr(value)) for value in values]
            same = [one == told for one, told in zip(now, before or [0] * len(now), strict=True)]
            same[at_status] = values[at_status] == loaded
            changed = [gr.skip() if known else value for value, known in zip(values, same, strict=True)]
            return [*changed, now]

        draft = Draft(page, train.kept() | chat.kept() | export.kept())

        def opened(draft_text: str, kept: str, target: str) -> list[Any]:
            values = draft.values(draft_text)
            conversations = chat.restored(kept, values.get("escape_html", True))
            chosen = values.get("model_name_or_path", page.model), values.get("infer_backend", LOCAL)
            target = target or export.running()
            now = [*train.opened(values), *chat.opened(values), *export.opened(values), *conversations, kept, target]
            return [*now, *follow([], *chosen, target), train.estimate.at_opening(page.runs_dir)]

        blocks.load(
            opened,
            [draft.carrier, chat.conversation, exported],
            [
                *train.opening,
                *chat.kept().values(),
                *export.kept().values(),
                *chat.chatbots,
                chat.conversation,
                exported,
                *followed,
                seen,
                train.estimate.timer,
            ],
            js=draft.reading(said, followed_export),
            **QUIET,
        ).then(None, js="() => { tunedesk.restored(); return []; }")
        # A model that was loaded or unloaded in the other tab has changed what is free.
        train_tab.select(lambda: train.estimate.at_opening(page.runs_dir), None, train.estimate.timer, **QUIET)
        gr.Timer(REFRESH_S).tick(follow, [seen, *asked], [*followed, seen], **QUIET)
    blocks.queue(api_open=False)
    # Gradio looks for events a thousand times a second: a tenth of a core, for a page that nobody has open.
    blocks._queue.sleep_when_free = QUEUE_LOOK_S
    return blocks


def create_app(arguments: Namespace, token: str | None) -> ASGIApp:
    """The whole application, ready to serve. Raises Problem for flags that cannot be right."""
    prefix, trusted = clean_prefix(arguments.root_path), Trusted(arguments.trusted_proxies)
    hosts, roots = Hosts.of(arguments), Roots.of(arguments)
    runs_dir = Path(arguments.runs_dir).expanduser().absolute()
    chat = ChatProcess(runs_dir / "_chat.log", trust_remote_code=roots.trust_remote_code)
    look = Look(runs_dir / "_look.log")
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_upload_routes(api, runs_dir)

    @api.get("/")
    def choose_language(request: Request, language: str = "") -> RedirectResponse:
        headers = request.headers
        chosen: Language = next(
            (known for known in LANGUAGES if known == language),
            language_of(headers.get("cookie", ""), headers.get("accept-language", "")),
        )
        # Relative: only the browser knows the address behind proxies and forwarded ports.
        rest = urlencode([item for item in request.query_params.multi_items() if item[0] != "language"])
        answer = RedirectResponse(f"{chosen}/{'?' if rest else ''}{rest}", status_code=303)
        if language:
            # Of no path: the browser takes the folder of the page's first address, which only it knows.
            https = request.url.scheme == "https"
            answer.set_cookie(COOKIE, chosen, max_age=YEAR_S, path=None, secure=https, samesite="lax")
        return answer

    def to_folder(request: Request) -> RedirectResponse:
        query = request.url.query
        return RedirectResponse(f"{request.url.path.rsplit('/', 1)[1]}/{'?' if query else ''}{query}", status_code=307)

    @api.get("/favicon.ico")
    def favicon() -> FileResponse:
        return FileResponse(PROJECT / "assets" / "logo.svg", media_type="image/svg+xml")

    html_page.mend()
    half_characters.mend()
    for language in LANGUAGES:
        api.add_api_route(f"/{language}", to_folder, methods=["GET"])
        page = Page(
            text=Text(language),
            model=str(Path(arguments.model).expanduser().absolute()),
            data_dir=Path(arguments.data_dir).expanduser().absolute(),
            dataset=arguments.dataset,
            runs_dir=runs_dir,
            chat=chat,
            roots=roots,
            look=look,
        )
        gr.mount_gradio_app(
            api,
            build(page),
            path=f"/{language}",
            theme=theme.theme(),
            css=theme.css(),
            head=theme.head(page.text),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            show_error=True,
            allowed_paths=[],
        )
    return Forwarded(Gate(OpenRoutes(EventBodies(Streams(api))), token, hosts), prefix, trusted)
