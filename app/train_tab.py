"""The Train tab: its buttons, and what they do. The settings are in train_form.py, what a run shows in monitor_panel.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app import form, fragments, runs, saved_settings
from app.command_preview import preview
from app.dataset_preview import DatasetPreview
from app.device_panel import DevicePanel
from app.devices import devices
from app.estimate import EstimatePanel
from app.monitor_panel import Monitor
from app.page import Page
from app.problem_words import refused_html
from app.processes import ProcessControls, launch_of
from app.run_queue import Queue, start_now
from app.top_bar import QUIET, TopBar
from app.train_form import TrainForm
from app.upload_panel import UploadPanel
from trainer import address, run_folder
from trainer.launch import Launch
from trainer.prepare import check
from trainer.problems import Problem, Problems
from trainer.settings import TrainSettings, label, parse
from trainer.settings_file import read_yaml


def short(path: Path) -> str:
    """A path as one reads it: from the working folder where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class TrainTab:
    def __init__(self, page: Page, top_bar: TopBar) -> None:
        self._page, self._text = page, page.text
        self._top_bar = top_bar
        self.form = TrainForm(page, top_bar)
        self.fields = self.form.fields
        self._lay_out_actions()
        self.monitor = Monitor(page, self.estimate.show)
        self._wire()

    # ---- layout ----

    def _lay_out_actions(self) -> None:
        text, runs_dir = self._text, self._page.runs_dir
        with gr.Row(elem_id="actions"):
            self.command_button = gr.Button(text("preview_command"), elem_id="preview_command", min_width=100)
            self.save_button = gr.Button(text("save_arguments"), elem_id="save_arguments", min_width=100)
            self.load_button = gr.Button(text("load_arguments"), elem_id="load_arguments", min_width=100)
            self.defaults_button = gr.Button(text("restore_defaults"), elem_id="restore_defaults", min_width=100)
            self.start_button = gr.Button(text("start"), variant="primary", elem_id="start", min_width=100)
            self.abort_button = gr.Button(text("abort"), variant="stop", elem_id="abort", min_width=100)
        with gr.Group(elem_classes="td-panel"), gr.Row():
            self.form.add("output_dir", info=text("output_dir.help", folder=short(runs_dir)))
            self.config_path = gr.Dropdown(
                [],
                label=text("config_path"),
                info=text("config_path.help", folder=short(saved_settings.folder(runs_dir))),
                allow_custom_value=True,
                elem_id="config_path",
            )
            self.processes = ProcessControls(self._page)
        DevicePanel(self._page)
        self.processes.lay_out_machines()
        self.estimate = EstimatePanel(text)
        self.messages = gr.HTML(elem_id="messages", apply_default_css=False)
        with gr.Row(visible=False, elem_id="offer") as self.offer:
            self.offers = {
                "resume": gr.Button(text("resume"), elem_id="offer_resume", min_width=100),
                "new": gr.Button(text("new_folder"), elem_id="offer_new", min_width=100),
                "queue": gr.Button(text("queue"), elem_id="offer_queue", min_width=100),
            }
        # The run whose resuming was asked for last, "" for what the form says; the run that this tab looks at, "" for
        # the newest.
        self.asked, self.shown = gr.State(""), gr.State("")
        with gr.Group(visible=False, elem_id="command_panel", elem_classes="td-closable") as self.command_panel:
            self.command_problems = gr.HTML(elem_id="command_problems", apply_default_css=False)
            self.command = gr.Textbox(label=text("command.title"), info=text("command.help"), lines=4, max_lines=14,
                                      buttons=["copy"], interactive=False, elem_id="command")  # fmt: skip
            # Clicked by assets/page.js when the form changes; there only while the panel is open.
            self.command_again = gr.Button("", elem_id="command_again", elem_classes="td-again")
            self.command_close = gr.Button(text("preview.close"), size="sm", elem_id="command_close",
                                           elem_classes="td-close")  # fmt: skip
        self.preview = DatasetPreview(self._page)
        self.upload = UploadPanel(self._page)

    # ---- wiring ----

    def _wire(self) -> None:
        inputs = self.form.inputs
        self.form.wire(self.messages)
        self.preview.wire(self.form.preview_button, self.fields, self.messages)
        self.upload.wire(self.form.upload_button, self.fields, self.messages)
        processes = self.processes.inputs
        self._wire_command([*inputs, *processes])
        self.save_button.click(self._on_save, [self.config_path, *inputs], [self.messages, self.config_path], **QUIET)
        self.load_button.click(
            self._on_load,
            self.config_path,
            [self.messages, *self.form.chosen, *inputs],
            **QUIET,
        )
        self.defaults_button.click(
            self._on_defaults,
            None,
            [self.messages, self.offer, *self.form.chosen, *inputs, *processes],
            **QUIET,
        )
        self.config_path.focus(
            lambda: gr.update(choices=saved_settings.names(self._page.runs_dir)), None, self.config_path, **QUIET
        )
        self._wire_start([*inputs, *processes], processes)
        self.estimate.wire(self.fields, processes, lambda values: form.for_training(self.form.settings(values)))

    def _wire_start(self, inputs: list[Any], processes: list[Any]) -> None:
        shown, answer = self.shown, self.answer
        self.start_button.click(self._on_start, [*inputs, shown], answer, **QUIET)
        self.offers["new"].click(runs.new_name, None, self.fields["output_dir"], **QUIET).then(
            self._on_start, [*inputs, shown], answer, **QUIET
        )
        self.offers["resume"].click(self.on_resume, [self.fields["output_dir"], *processes, shown], answer, **QUIET)
        self.offers["queue"].click(self._on_queue, [*inputs, self.asked, shown], answer, **QUIET)
        self.monitor.resume.click(self._on_resume_shown, [*processes, shown], answer, **QUIET)
        self.abort_button.click(self._on_abort, shown, answer, **QUIET)
        self.monitor.follow_latest.click(lambda: self._answer("", ""), None, answer, **QUIET)

    def _wire_command(self, inputs: list[Any]) -> None:
        """The preview and, while it is open, its following of the form: what it shows is what Start would run."""
        again = {"fn": self._on_change, "inputs": inputs, "outputs": [self.command_problems, self.command]}
        # Once more after it has opened: what was changed meanwhile was not followed yet.
        self.command_button.click(
            self._on_command, inputs, [self.messages, self.command_panel, self.command], **QUIET
        ).then(**again, **QUIET)
        self.command_again.click(**again, trigger_mode="always_last", **QUIET)
        self.command_close.click(lambda: gr.update(visible=False), None, self.command_panel, **QUIET)

    # ---- what a page opens with ----

    def kept(self) -> dict[str, Any]:
        """The components whose values outlive a reload, by name."""
        return {key: self.fields[key] for key in form.KEYS} | {one.elem_id: one for one in self.processes.inputs}

    @property
    def opening(self) -> list[Any]:
        """What `opened` fills in."""
        return [self.config_path, *self.form.chosen, *self.kept().values()]

    def opened(self, values: dict[str, Any]) -> list[Any]:
        """A page that opens with `values`, those that it had kept: the others are as they were laid out."""
        names = saved_settings.names(self._page.runs_dir)
        config_path = gr.update(value=saved_settings.new_name(), choices=names)
        values = dict(values)
        if runs.is_proposed(values.get("output_dir", "")):
            del values["output_dir"]
        values.setdefault("output_dir", runs.new_name())
        values.setdefault("model_name_or_path", self._page.model)
        values.setdefault("adapter_name_or_path", "")
        values.setdefault("devices", self.processes.proposed())
        processes = [gr.update(value=values[one.elem_id]) if one.elem_id in values else gr.skip()
                     for one in self.processes.inputs]  # fmt: skip
        return [config_path, *self.form.filled(values), *processes]

    def _on_defaults(self) -> list[Any]:
        page = self._page
        values = {key: self.fields[key].value for key in form.KEYS}
        values |= {"learning_rate": self._top_bar.learning_rate(page.model)[0], "dataset": self.form.preselected(),
                   "output_dir": runs.new_name()}  # fmt: skip
        processes = [gr.update(value=value) for value in self.processes.defaults()]
        notice = fragments.notice_html(self._text("restored_defaults"))
        return [notice, gr.update(visible=False), *self.form.filled(values), *processes]

    # ---- handlers ----

    def _on_command(self, *values: Any) -> list[Any]:
        try:
            settings, launch = self._asked(values)
        except (Problem, Problems) as error:
            return [refused_html(error, self._text), gr.update(visible=False), ""]
        return ["", gr.update(visible=True), preview(settings, launch, self._text)]

    def _on_change(self, *values: Any) -> list[Any]:
        """The command of the form as it is now; of a form with mistakes there is none, but what they are."""
        try:
            settings, launch = self._asked(values)
        except (Problem, Problems) as error:
            return [refused_html(error, self._text), ""]
        return ["", preview(settings, launch, self._text)]

    def _asked(self, values: Sequence[Any]) -> tuple[TrainSettings, Launch]:
        """What the form and the process controls ask for. Raises Problem or Problems."""
        settings = form.for_training(self.form.settings(values[: len(form.KEYS)]))
        return settings, launch_of(values[len(form.KEYS) :])

    def _on_save(self, name: str, *values: Any) -> list[Any]:
        try:
            typed = {key: form.typed(value) for key, value in zip(form.KEYS, values, strict=True)}
            path = saved_settings.save(self._page.runs_dir, name, self.form.settings(values), typed)
        except (Problem, Problems) as error:
            return [refused_html(error, self._text), gr.skip()]
        choices = gr.update(choices=saved_settings.names(self._page.runs_dir), value=path.name)
        return [fragments.notice_html(self._text("saved_arguments", path=path)), choices]

    def _on_load(self, name: str) -> list[Any]:
        try:
            settings, written = saved_settings.load(self._page.runs_dir, name)
        except (Problem, Problems) as error:
            return [refused_html(error, self._text), gr.skip(), gr.skip(), gr.skip(), *(gr.skip() for _ in form.KEYS)]
        found = form.values_from(settings, written)
        # A file that does not name where things are leaves what the page has.
        kept = {"model_name_or_path", "dataset_dir", "dataset", "output_dir"} - written.keys()
        if settings.compute_type == "auto":
            kept.add("compute_type")
        path = saved_settings.path_for(self._page.runs_dir, name)
        notice = fragments.notice_html(self._text("loaded_arguments", path=path))
        return [notice, *self.form.filled({key: value for key, value in found.items() if key not in kept})]

    @property
    def answer(self) -> list[Any]:
        """The components that `_answer` fills."""
        return [self.messages, self.offer, *self.offers.values(), self.asked, self.shown, *self.monitor.parts]

    def _answer(self, message: str, shown: str, offered: Sequence[str] = (), asked: str = "") -> list[Any]:
        """`shown`: the run that the tab looks at. `offered`: of the offers, what can be done now."""
        buttons = [gr.update(visible=name in offered) for name in self.offers]
        return [message, gr.update(visible=bool(offered)), *buttons, asked, shown, *self.monitor.view(shown)]

    def _on_start(self, *values: Any) -> list[Any]:
        return self._started(lambda: self._asked(values[:-1]), values[-1])

    def _on_resume_shown(self, *values: Any) -> list[Any]:
        run = self.monitor.run(values[-1])
        return self.on_resume(run.name if run else "", *values)

    def on_resume(self, name: str, *values: Any) -> list[Any]:
        """`name`: the run to go on with. `values`: of the process controls, then the run that the tab looks at."""
        return self._started(lambda: self._resumed(name, values[:-1]), values[-1], name)

    def _resumed(self, name: str, processes: Sequence[Any]) -> tuple[TrainSettings, Launch]:
        runs_dir = self._page.runs_dir
        folder = runs.named(runs_dir, name) or runs.folder_for(runs_dir, name)
        self._page.roots.check(folder, label("output_dir"))
        found = parse(read_yaml(folder / run_folder.CONFIG))
        resumed = {"output_dir": str(folder), "resume_from_checkpoint": "latest"}
        return found.model_copy(update=resumed), launch_of(processes)

    def _started(self, asked: Callable[[], tuple[TrainSettings, Launch]], shown: str, resumed: str = "") -> list[Any]:
        """Starts what `asked` gives; where its devices train already, offers to queue it."""
        try:
            wanted, launch = asked()
            self._page.roots.check_settings(wanted)
            if runs.read(Path(wanted.output_dir)).alive:  # a second click on Start
                return self._answer("", Path(wanted.output_dir).name)
            check(wanted)
            address.check(launch)
            if busy := start_now(self._page.runs_dir, wanted, launch):
                key = "device_busy" if devices().count > 1 else "device_busy.only"
                words = fragments.notice_html(self._text(key, run=busy.name))
                return self._answer(words, shown, ["queue"], resumed)
        except (Problem, Problems) as error:
            several = error.problems if isinstance(error, Problems) else [error]
            if [problem.code for problem in several] == ["output_exists"]:
                return self._offered(Path(several[0].values["path"]), shown)
            return self._answer(refused_html(error, self._text), shown)
        return self._answer("", "")

    def _on_queue(self, *values: Any) -> list[Any]:
        """Queues what was asked for last: the form as it is now, or a run to be resumed."""
        *form_values, asked, shown = values
        try:
            if asked:
                wanted, launch = self._resumed(asked, form_values[len(form.KEYS) :])
            else:
                wanted, launch = self._asked(form_values)
            self._page.roots.check_settings(wanted)
            check(wanted)
            place = Queue(self._page.runs_dir).add(wanted, launch)
        except (Problem, Problems) as error:
            return self._answer(refused_html(error, self._text), shown)
        words = self._text("queued", run=Path(wanted.output_dir).name, place=place)
        return self._answer(fragments.notice_html(words), shown)

    def _offered(self, folder: Path, shown: str) -> list[Any]:
        run = runs.read(folder)
        checkpoint = run_folder.checkpoints(folder)[-1].name if run.resumable else ""
        words = self._text(
            "resume_offer" if run.resumable else "resume_offer_done", run=run.name, checkpoint=checkpoint
        )
        return self._answer(fragments.notice_html(words), shown, ["resume", "new"] if run.resumable else ["new"])

    def _on_abort(self, shown: str) -> list[Any]:
        run = self.monitor.run(shown)
        if run is not None and run.alive and runs.stop(run.folder):
            return self._answer("", shown)  # the trainer's own stage says that it is stopping
        if run is not None and run.status == "elsewhere" and runs.stop(run.folder):
            return self._answer(fragments.notice_html(self._text("abort_elsewhere", host=run.host)), shown)
        others = runs.alive(self._page.runs_dir)
        words = self._text("abort_other", run=others[0].name) if others else self._text("nothing_to_abort")
        return self._answer(fragments.notice_html(words), shown)

    # ---- a run that the list of runs brings ----

    def show(self, name: str) -> list[Any]:
        """What `answer` is filled with when the run `name` is opened."""
        return self._answer("", name)

    @property
    def filled(self) -> list[Any]:
        """The components that `fill` fills."""
        return [self.messages, self.offer, *self.form.chosen, *self.form.inputs]

    def fill(self, values: dict[str, Any], message: str) -> list[Any]:
        """The form with `values` by key, the other fields as they are."""
        return [fragments.notice_html(message), gr.update(visible=False), *self.form.filled(values)]
