"""Cuts a reply before the first of some strings, while it arrives. Light: no torch."""

from collections.abc import Sequence


class StopStrings:
    """Text that may be the beginning of a stop string is held back until it is certain. `met`: one was found."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.met = False

    def push(self, text: str) -> str:
        """What may be shown now; nothing more once a stop string was met."""
        if self.met:
            return ""
        text, self._held = self._held + text, ""
        found = [place for string in self._strings if (place := text.find(string)) >= 0]
        if found:
            self.met = True
            return text[: min(found)]
        begun = max((overlap(text, string) for string in self._strings), default=0)
        certain = len(text) - begun
        self._held = text[certain:]
        return text[:certain]

    def end(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, string: str) -> int:
    """The length of the longest end of `text` that `string` begins with."""
    longest = min(len(text), len(string) - 1)
    return next((length for length in range(longest, 0, -1) if string.startswith(text[-length:])), 0)
