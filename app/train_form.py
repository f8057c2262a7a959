"""The settings of the Train tab as widgets: laid out, read back as settings, filled from settings."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app import form
from app.devices import devices
from app.page import Page
from app.placeholder_fields import PlaceholderFields
from app.problem_words import refused_html
from app.top_bar import QUIET, TopBar
from trainer import hub_datasets, records
from trainer.problems import Problem
from trainer.settings import TrainSettings, choices, keys, label

# Names that every language has; the keys are LLaMA-Factory's.
STAGES = {"sft": "Supervised Fine-Tuning", "pt": "Pre-Training", "dpo": "DPO", "kto": "KTO", "rm": "Reward Modeling"}


class TrainForm:
    def __init__(self, page: Page, top_bar: TopBar) -> None:
        self._page, self._text, self._top_bar = page, page.text, top_bar
        self.fields: dict[str, Any] = dict(top_bar.fields)
        # The folder whose datasets the form offers: loaded settings bring their own choice.
        self.settled_dir = gr.State(str(page.data_dir))
        self._lay_out()

    # ---- layout ----

    def _lay_out(self) -> None:
        text = self._text
        with gr.Group(elem_classes="td-panel"), gr.Row():
            self.add("stage", choices=[(name, key) for key, name in STAGES.items() if key in choices("stage")])
            self.add("dataset_dir", value=str(self._page.data_dir))
            self.add("dataset", value=self.preselected(), choices=self._offered(str(self._page.data_dir)),
                      multiselect=True, allow_custom_value=True, scale=2)  # fmt: skip
            self.preview_button = gr.Button(text("preview_dataset"), elem_id="preview_dataset", min_width=110, scale=0)
            self.upload_button = gr.Button(text("upload_dataset"), elem_id="upload_dataset", min_width=110, scale=0)
        self._placeholders = PlaceholderFields(self._page, self.add)
        with gr.Group(elem_classes="td-panel"):
            with gr.Row():
                rate, info = self._top_bar.learning_rate(self._page.model)
                self.add("learning_rate", value=rate, info=info, min_width=140)
                for key in ("num_train_epochs", "max_grad_norm", "seed", "max_samples"):
                    self.add(key, min_width=140)
                # Loaded settings may name what is not here: Start says so, where Gradio would only say "Error".
                self.add("compute_type", value=devices().compute_types[0], choices=devices().compute_types,
                          allow_custom_value=True, min_width=140)  # fmt: skip
            with gr.Row():
                for key in ("cutoff_len", "per_device_train_batch_size", "gradient_accumulation_steps", "val_size"):
                    self.add(key, min_width=140)
                self.add("lr_scheduler_type", min_width=140)
        with gr.Accordion(text("extra_configurations"), open=False, elem_id="extra_configurations"):
            with gr.Row():
                for key in ("logging_steps", "save_steps", "warmup_steps", "neftune_noise_alpha"):
                    self.add(key, min_width=140)
                self.fields[form.EXTRA_ARGS] = gr.Textbox(
                    "", label=text("extra_args"), info=text("extra_args.help"), elem_id=form.EXTRA_ARGS, scale=2
                )
            with gr.Row():
                for key in ("train_on_prompt", "mask_history", "skip_bad_rows"):
                    self.add(key)
        self._lay_out_method("lora", [
            ["lora_rank", "lora_alpha", "lora_dropout", "loraplus_lr_ratio", "lora_target", "additional_target"],
            ["create_new_adapter", "use_rslora", "use_dora", "pissa_init"],
        ])  # fmt: skip
        self._lay_out_method("freeze", [keys("freeze")])

    def _lay_out_method(self, method: str, rows: list[list[str]]) -> None:
        """The settings of one finetuning method, there only while it is chosen."""
        chosen, name = self.fields["finetuning_type"], f"{method}_configurations"
        visible = chosen.value == method
        with gr.Accordion(self._text(name), open=False, visible=visible, elem_id=name) as accordion:
            for row in rows:
                with gr.Row():
                    for key in row:
                        self.add(key, min_width=140, **({"value": "16"} if key == "lora_alpha" else {}))
        chosen.change(lambda value: gr.update(visible=value == method), chosen, accordion, **QUIET)

    def add(self, key: str, value: Any = None, **options: Any) -> None:
        """Lays out the field `key` here."""
        self.fields[key] = form.widget(key, self._text, value, **options)

    # ---- what the lists offer ----

    def _datasets(self, data_dir: str) -> list[str]:
        try:
            return records.list_datasets(self._page.roots.check(data_dir, label("dataset_dir")))
        except Problem:
            return []  # said by `_data_dir_problem` and again by Start

    def _offered(self, data_dir: str) -> list[str]:
        """The folder's datasets, then those of the hubs' caches."""
        names = self._datasets(data_dir)
        return [*names, *(name for name in hub_datasets.cached() if name not in names)]

    def preselected(self) -> list[str]:
        found = self._datasets(str(self._page.data_dir))
        if self._page.dataset in found:
            return [self._page.dataset]
        return found if len(found) == 1 else []

    # ---- wiring ----

    def wire(self, messages: gr.HTML) -> None:
        """`messages`: where problems are said."""
        self._top_bar.wire(self.fields["learning_rate"])
        data_dir, dataset = self.fields["dataset_dir"], self.fields["dataset"]
        self._placeholders.wire(self.fields)
        data_dir.change(self._on_data_dir, [data_dir, dataset, self.settled_dir], [dataset, self.settled_dir], **QUIET)
        data_dir.blur(self._data_dir_problem, data_dir, messages, **QUIET)
        self.fields["dataset"].focus(
            lambda folder: gr.update(choices=self._offered(folder)),
            self.fields["dataset_dir"],
            self.fields["dataset"],
            **QUIET,
        )

    def _on_data_dir(self, data_dir: str, chosen: list[str], settled: str) -> list[Any]:
        """The folder's datasets; of the chosen ones those that it and the hubs have, else the one that the page proposes."""
        if data_dir == settled:
            return [gr.skip(), gr.skip()]
        names = self._datasets(data_dir)
        kept = [name for name in chosen if name in names or "/" in name]
        proposed = names if len(names) == 1 else [name for name in [self._page.dataset] if name in names]
        return [gr.update(choices=self._offered(data_dir), value=kept or proposed), data_dir]

    def _data_dir_problem(self, data_dir: str) -> str:
        try:
            if records.list_datasets(self._page.roots.check(data_dir, label("dataset_dir"))):
                return ""
            raise Problem("data_dir_empty", label=label("dataset_dir"), path=data_dir.strip())
        except Problem as problem:
            return refused_html(problem, self._text)

    # ---- settings in and out ----

    @property
    def inputs(self) -> list[Any]:
        """The fields in the order of form.KEYS."""
        return [self.fields[key] for key in form.KEYS]

    @property
    def chosen(self) -> list[Any]:
        """What goes with the fields: `filled` fills these, then `inputs`."""
        return [self._top_bar.model_name, self._top_bar.settled, self.settled_dir]

    def settings(self, values: Sequence[Any]) -> TrainSettings:
        """Those of `values`, in the order of form.KEYS. Raises Problem or Problems for what cannot be used here."""
        typed = dict(zip(form.KEYS, values, strict=True))
        self._page.roots.check_typed(typed)
        settings = form.settings_from(typed, self._page.runs_dir)
        if self._page.roots.trust_remote_code:
            settings = settings.model_copy(update={"trust_remote_code": True})
        self._page.roots.check_settings(settings)
        possible = devices().compute_types
        if settings.compute_type not in ("auto", *possible):
            raise Problem("compute_unsupported", label=label("compute_type"), value=settings.compute_type,
                          device=devices().names[0], choices=", ".join(possible))  # fmt: skip
        return settings

    def filled(self, values: dict[str, Any]) -> list[Any]:
        """The name of the model, the model and folder that are settled, and every field: those in `values` filled."""
        name = model = folder = gr.skip()
        if "model_name_or_path" in values:
            model, name = values["model_name_or_path"], self._top_bar.named(values["model_name_or_path"])
        if "dataset_dir" in values:
            folder = values["dataset_dir"]
        return [name, model, folder, *(self._loaded(key, values) for key in form.KEYS)]

    def _loaded(self, key: str, found: dict[str, Any]) -> Any:
        """The field `key` filled from `found`; lists offer what belongs to the folder or model that comes with it."""
        if key not in found:
            return gr.skip()
        if key == "dataset" and "dataset_dir" in found:
            return gr.update(choices=self._offered(found["dataset_dir"]) or found[key], value=found[key])
        if "model_name_or_path" in found and key == "adapter_name_or_path":
            return gr.update(choices=self._top_bar.checkpoints(found["model_name_or_path"]), value=found[key])
        if "model_name_or_path" in found and key == "learning_rate":
            return gr.update(value=found[key], info=self._top_bar.learning_rate(found["model_name_or_path"])[1])
        return gr.update(value=found[key])
