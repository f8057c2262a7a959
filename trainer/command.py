"""`tunedesk train`: arguments to settings, checks, and the run folder claimed, all before torch is imported."""

import argparse
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import IO, Any

from trainer import accelerators, address, run_folder, torch_import, torchrun, unused_accelerators
from trainer.events import EventLog, FollowerLog
from trainer.launch import Launch
from trainer.model_folder import read_ahead
from trainer.prepare import absolute, check
from trainer.problems import Language, Problem, Problems
from trainer.quantization import without_bitsandbytes
from trainer.settings import TrainSettings, choices, default_text, keys, label, parse, shown
from trainer.settings_file import read_yaml, to_yaml
from trainer.terminal_parser import TerminalParser

log = logging.getLogger("trainer")

# How often it is seen whether another machine's page asks the run to end: a look is a request to a shared disk.
LOOK_S = 2.0


def terminal_language() -> Language:
    """The language that the terminal's locale asks for."""
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def parser(language: Language) -> argparse.ArgumentParser:
    """Flags made from the settings; FILE and key=value as LLaMA-Factory's command line takes them."""
    words = {
        "en": ("Fine-tune a model.", "a settings file (YAML), then key=value pairs that override it", "default"),
        "zh": ("微调模型。", "设置文件（YAML），其后可用 键=值 覆盖", "默认"),
    }[language]
    result = TerminalParser("tunedesk train", words[0], language)
    result.add_argument("file_or_pairs", nargs="*", metavar="FILE | key=value", help=words[1])
    for key in keys():
        text = f"{shown(key).label(language)}: {shown(key).help(language)}"
        options = f" [{'|'.join(choices(key))}]" if choices(key) else ""
        default = f" ({words[2]}: {default_text(key)})" if default_text(key) else ""
        result.add_argument(f"--{key}", help=(text + options + default).replace("%", "%%"), metavar="…")
    return result


def settings_from(argv: list[str], language: Language) -> TrainSettings:
    """Settings from files, key=value pairs and flags; later ones win. Raises Problem or Problems."""
    if {"-h", "--help"} & set(argv):
        parser(language).parse_args(["--help"])
    settings = parse(typed_values(argv))
    if not settings.output_dir:
        if Launch.of(os.environ).nodes > 1:  # each machine would take another name
            raise Problem("setting_missing", label=label("output_dir"))
        settings = settings.model_copy(update={"output_dir": time.strftime("runs/train_%Y-%m-%d-%H-%M-%S")})
    return absolute(settings)


def typed_values(argv: list[str]) -> dict[str, Any]:
    """What the arguments say, unchecked, so that whatever is wrong is refused by name."""
    values: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals:
            # A flag alone is a switch: --do_train. A value may begin with one dash: --max_steps -1.
            values[key] = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        elif equals and (word.startswith("--") or key.isidentifier()):
            values[key] = value
        else:
            values |= read_yaml(Path(word))
    return values


def main(argv: list[str]) -> int:
    """Runs a training; 0 when it completed or was stopped, 1 when it failed, 2 when it could not start."""
    if torchrun.launched():
        return _work(argv)
    language = terminal_language()
    stop = StopOnSignals(signal.SIGTERM, signal.SIGINT)
    try:
        settings = settings_from(argv, language)
        processes = Launch.of(os.environ) if torchrun.rank() is None else None
        leads = processes.node_rank == 0 if processes else torchrun.rank() == 0
        if processes:  # before the folder: the first machine's command may have been given on another one
            address.check(processes)
        check(settings, output=leads)
        folder = Path(settings.output_dir)
        held: AbstractContextManager[Any] = nullcontext()
        events: EventLog = FollowerLog(folder / run_folder.EVENTS)
        if leads:
            held, events = claim(folder, settings)
    except (Problem, Problems) as error:
        problems = error.problems if isinstance(error, Problems) else [error]
        for problem in problems:
            print(problem.sentence(language), file=sys.stderr)
        return 2
    read_ahead(settings.model_name_or_path)
    with held:
        processes = processes and torchrun.of_torch(processes)
        # DeepSpeed runs under torchrun even where it runs one process.
        several = processes is not None and (processes.several or settings.deepspeed is not None)
        stop.tell(events, (lambda: torchrun.relay_stop(events)) if several else None)
        if leads:
            stop.look_into(folder)
        if processes and several:
            return torchrun.run(processes, settings, events, stop.asked)
        return _train(settings, events, stop)


def _work(argv: list[str]) -> int:
    """One process of several: the launcher has checked the settings and claimed the folder."""
    stop = StopOnSignals(torchrun.STOP)
    torchrun.end_with_the_parent()
    settings = settings_from(argv, terminal_language())
    log = FollowerLog if torchrun.rank() else EventLog
    return _train(settings, log(Path(settings.output_dir) / run_folder.EVENTS), stop)  # the launcher says: stopping


def _train(settings: TrainSettings, events: EventLog, stop: "StopOnSignals") -> int:
    _share_the_cores()
    without_bitsandbytes(settings)
    warnings.simplefilter("ignore", FutureWarning)  # what libraries tell each other is not for train.log
    warnings.filterwarnings("ignore", module="peft")
    _log_to(Path(settings.output_dir) / run_folder.LOG)
    # A crash in a library leaves its name in the log.
    faulthandler.enable((Path(settings.output_dir) / run_folder.LOG).open("ab"))
    torch_import.prepare()
    from trainer.weights import Weights  # torch from here on

    plain = settings.finetuning_type == "lora" and not settings.quantization_bit and torchrun.rank() is None
    weights = Weights.ahead(Path(settings.model_name_or_path), settings.compute_type) if plain else None
    _tell_of_the_processor(events)
    from trainer.train import run  # takes seconds

    return run(settings, events, stop.asked, weights)


def _tell_of_the_processor(events: EventLog) -> None:
    """Once on each machine, where the run does not use what the machine has."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and (problem := unused_accelerators.problem()):
        log.warning("%s", problem.sentence(terminal_language()))
        events.append("warning", code=problem.code, **problem.values)


def _share_the_cores() -> None:
    """libgomp's threads spin while they wait for each other, which is fastest on an idle machine and ruinous
    where another program holds a core: 5 s a step instead of 0.4 s, measured on two cores. Spinning less
    costs too: with a fifth of each core taken, a step took 0.20 s with libgomp's own count, 0.22 s with 5,000
    rounds and 0.31 s with 1,000; with a whole core taken, 0.49 s with 5,000. Read when torch loads.
    """
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """glibc gives every block above 128 KiB back to the kernel when it is freed, and a step's activations are
    all larger: getting them again, page by page, was a sixth of the processor time of a small model's step.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl and macOS have none
        libc.mallopt(m_mmap_threshold, 32 * 2**20)
        libc.mallopt(m_trim_threshold, 2**30)


class StopOnSignals:
    """SIGTERM and Ctrl-C set `asked`: the step is finished and saved. A second one ends the process at once."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.asked = threading.Event()
        self._events: EventLog | None = None
        self._then: Callable[[], None] | None = None
        self._number = 0
        for number in numbers:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # a launcher's request may have come before now

    def tell(self, events: EventLog, then: Callable[[], None] | None = None) -> None:
        """From now on the page hears of it at once; `then`: what a signal does besides."""
        self._events, self._then = events, then
        if self.asked.is_set():
            self._answer()

    def look_into(self, folder: Path) -> None:
        """From now on it is also asked for by a file there, as a page on another machine leaves it."""

        def look() -> None:
            while not self.asked.wait(LOOK_S):
                if (folder / run_folder.STOP_WANTED).exists():
                    (folder / run_folder.STOP_ASKED).touch()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        threading.Thread(target=look, daemon=True, name="stop wanted").start()

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.asked.set()
        self._number = number
        signal.signal(number, signal.SIG_DFL)
        self._answer()

    def _answer(self) -> None:
        if self._events:
            self._events.stage("stopping")
            if self._number == signal.SIGTERM and not self._events.path.with_name(run_folder.STOP_ASKED).exists():
                self._events.append("warning", code="stopped_from_outside", signal="SIGTERM")
        if self._then:
            self._then()


def _log_to(path: Path) -> None:
    """Messages go to standard error, and to train.log as well unless that is where standard error goes.

    Of several processes the first one writes them; of the others only what is wrong is heard.
    """
    shown = logging.StreamHandler()
    handlers: list[logging.Handler] = [shown]
    if not (path.exists() and os.path.samestat(os.fstat(2), path.stat())):
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
        shown.addFilter(lambda record: not record.exc_info)  # a person reads the sentence that follows
    level = logging.WARNING if torchrun.rank() else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", handlers=handlers)


def claim(folder: Path, settings: TrainSettings) -> tuple[IO[str], EventLog]:
    """Makes `folder` this process's run: the lock, run.json, config.yaml and the first event.

    Raises Problem when another process has it or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = run_folder.lock(folder)
        if held is None:
            raise Problem("output_in_use", label=label("output_dir"), path=str(folder))
        if not settings.resume_from_checkpoint and run_folder.holds_run(folder):  # since it was checked
            raise Problem("output_exists", label=label("output_dir"), path=str(folder))
        run_folder.remove_leftovers(folder)
        run_folder.write_identity(folder, run_folder.Identity.of(os.getpid(), accelerators.chosen(os.environ)))
        # A resumed run keeps the settings it was started with.
        if not (folder / run_folder.CONFIG).exists():
            run_folder.write_whole(folder / run_folder.CONFIG, to_yaml(settings))
        events = EventLog(folder / run_folder.EVENTS)
        for asked in (run_folder.STOP_ASKED, run_folder.STOP_WANTED):
            (folder / asked).unlink(missing_ok=True)
        events.keep_room()
        events.stage("starting")
    except OSError as error:
        raise Problem(
            "output_not_writable", label=label("output_dir"), path=str(folder), detail=error.strerror
        ) from None
    return held, events


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
