"""What has to be put right, as the page says it in its language."""

from app import fragments
from app.text import Text
from trainer.problems import Problem, Problems


def refused_html(error: Problem | Problems, text: Text, title: str = "problems.title") -> str:
    """One sentence each. `title`: the text that stands above them, "" for none."""
    several = error.problems if isinstance(error, Problems) else [error]
    return fragments.problems_html(
        text(title) if title else "", [problem.sentence(text.language) for problem in several]
    )
