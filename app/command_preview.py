"""The command preview: what Start runs here, and what is to be run on each of several machines."""

from app import runs
from app.text import Text
from trainer.launch import Launch
from trainer.settings import TrainSettings
from trainer.settings_file import to_shell

# From the project's folder.
KUBERNETES = "assets/kubernetes/multi-node.yaml"


def preview(settings: TrainSettings, launch: Launch, text: Text) -> str:
    """Lines for a shell: one command, or a command a line for each machine, under comments."""
    commands = [to_shell(runs.command(settings, launch, rank)) for rank in range(launch.nodes)]
    if launch.nodes == 1:
        return commands[0]
    first = text("command.machines", minutes=round(launch.meet_timeout_s / 60) or 1)
    blocks = [f"# {first}", *(f"# {text('command.machine', number=rank + 1)}\n{command}" for rank, command in
                              enumerate(commands)), f"# {text('command.kubernetes', file=KUBERNETES)}"]  # fmt: skip
    return "\n\n".join(blocks)
