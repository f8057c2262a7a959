"""The top bar: language, model, method, checkpoint, template. Shared by both tabs; layout and wiring only."""

from pathlib import Path
from typing import Any

import gradio as gr

from app import fragments, models
from app.arguments import PROJECT
from app.devices import devices
from app.download_panel import DownloadPanel
from app.form import widget
from app.page import Page
from app.quiet import QUIET
from trainer.models_here import Model
from trainer.quantization import quantization_missing
from trainer.settings import default_text, shown


class TopBar:
    """Its `fields` are settings by key; the train tab adds the others."""

    def __init__(self, page: Page) -> None:
        text, self._page = page.text, page
        self._checkpoints = models.Checkpoints(page.runs_dir)
        other = "zh" if text.language == "en" else "en"
        logo = (PROJECT / "assets" / "logo.svg").read_text(encoding="utf-8")
        gr.HTML(fragments.header_html(logo, text("name"), devices().words(text), text("other_language"),
                                      f"../?language={other}"), elem_id="header")  # fmt: skip
        found = models.found(page.model, page.roots)
        with gr.Group(elem_classes="td-panel"):
            with gr.Row():
                self.model_name = gr.Dropdown(
                    self._choices(found),
                    value=self._name_of(page.model, found),
                    label=text("model_name"),
                    info=text("model_name.help"),
                    elem_id="model_name",
                )
                model_path = widget("model_name_or_path", text, page.model, scale=2)
            with gr.Row():
                method = widget("finetuning_type", text)
                checkpoint = widget(
                    "adapter_name_or_path",
                    text,
                    "",
                    choices=self.checkpoints(page.model),
                    allow_custom_value=True,
                    scale=2,
                )
                quantization = widget("quantization_bit", text, visible=quantization_missing() is None)
                template = widget("template", text)
            self._notices = gr.HTML(self._said(page.model, "", "auto"), elem_id="template_notices",
                                    apply_default_css=False)  # fmt: skip
            DownloadPanel(page, model_path)
        # The model whose checkpoint and rate the form shows: loaded settings bring their own.
        self.settled = gr.State(page.model)
        self.fields: dict[str, Any] = {
            "model_name_or_path": model_path,
            "finetuning_type": method,
            "adapter_name_or_path": checkpoint,
            "quantization_bit": quantization,
            "template": template,
        }

    def checkpoints(self, model: str) -> list[models.Choice]:
        """What the checkpoint list offers for `model`."""
        return [
            (self._page.text("no_checkpoint"), ""),
            *self._checkpoints.of(self._within(model), self._page.text),
        ]

    def learning_rate(self, model: str) -> tuple[str, str]:
        """The learning rate to begin with for `model`, and what is said of it."""
        text, proposal = self._page.text, models.proposed(self._within(model), "learning_rate")
        if proposal:
            return proposal, text("learning_rate.recommended", name=Path(model).name, value=proposal)
        return default_text("learning_rate"), shown("learning_rate").help(text.language)

    def wire(self, learning_rate: gr.Textbox) -> None:
        """`learning_rate` takes what the chosen model recommends."""
        path, checkpoint = self.fields["model_name_or_path"], self.fields["adapter_name_or_path"]
        self.model_name.input(self._path_of, [self.model_name, path], path, **QUIET)
        path.change(
            self._on_model,
            [path, learning_rate, self.settled],
            [self.model_name, checkpoint, learning_rate, self.settled],
            **QUIET,
        )
        chosen = [path, checkpoint, self.fields["template"]]
        for field in chosen:
            field.change(self._said, chosen, self._notices, **QUIET)
        if quantization_missing():  # a loaded value is shown all the same, so that it can be taken back
            bits = self.fields["quantization_bit"]
            bits.change(lambda value: gr.update(visible=value != "none"), bits, bits, **QUIET)

    def named(self, model: str) -> Any:
        """The name list with `model` chosen: the models that the page opened with, and those beside `model`."""
        found = self._found(model)
        return gr.update(choices=self._choices(found), value=self._name_of(model, found))

    def _found(self, model: str) -> dict[str, Model]:
        roots = self._page.roots
        return models.found(self._within(model), roots) | models.found(self._page.model, roots)

    def _choices(self, found: dict[str, Model]) -> list[models.Choice]:
        """(as shown, name) of each; what is typed has no name."""
        custom = self._page.text("model_custom")
        return [
            *((models.described(name, one, self._page.text), name) for name, one in found.items()),
            (custom, custom),
        ]

    def _name_of(self, model: str, found: dict[str, Model]) -> str:
        return models.name_of(self._within(model), found) or self._page.text("model_custom")

    def _within(self, model: str) -> str:
        """`model`, or none where it is outside of what the page may look at: Start and Load say so."""
        return model if model and model in self._page.roots else ""

    def _path_of(self, name: str, path: str) -> Any:
        """The path of the model chosen by name; what is typed stays when the name is nobody's, or already its own."""
        found = self._found(path).get(name)
        return gr.skip() if found is None or models.same(str(found.path), self._within(path)) else str(found.path)

    def _on_model(self, model: str, learning_rate: str, settled: str) -> list[Any]:
        if models.same(self._within(model), self._within(settled)):
            return [self.named(model), gr.skip(), gr.skip(), gr.skip()]
        value, info = self.learning_rate(model)
        # A rate that the user typed stays; one that came from a default or another model's folder does not.
        untouched = learning_rate in {default_text("learning_rate"), *self._proposals()}
        rate = gr.update(info=info, value=value) if untouched else gr.update(info=info)
        return [self.named(model), gr.update(choices=self.checkpoints(model), value=""), rate, model]

    def _said(self, model: str, checkpoint: str, template: str) -> str:
        """What there is to say of the chosen template before anything is started."""
        if checkpoint and checkpoint not in self._page.roots:
            checkpoint = ""
        found = models.template_notices(self._within(model), checkpoint, template or "auto", self._page.text.language)
        return "".join(fragments.notice_html(sentence) for sentence in found)

    def _proposals(self) -> set[str]:
        found = models.found(self._page.model, self._page.roots).values()
        return {value for one in found if (value := models.proposed(str(one.path), "learning_rate"))}
