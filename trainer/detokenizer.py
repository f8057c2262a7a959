"""Token ids to text while they arrive, in whole characters only and at a cost that does not grow with the reply.

`"".join(pushed) + end()` is what decoding all the ids at once gives.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Half a character decodes to this. SentencePiece's byte tokens give one for each of at most 3 bytes.
_HALF = "�"
_HALF_MOST = 3
# Only bytes that are no text at all keep so many ids waiting.
_WAITING_MOST = 32
_WINDOW = 8


class Detokenizer:
    """Decodes a sliding window of ids: a decoder strips the first token's space, so new text needs its neighbours.

    The window begins where a character does: byte tokens torn apart would spoil the ones beside them.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped: Collection[int] = frozenset(tokenizer.all_special_ids) if skip_special_tokens else ()
        self._window: list[int] = []
        self._given = 0  # Characters of the window's text that have been given out.
        self._whole = 0  # Ids of the window up to the latest place where no character was split.

    def push(self, token_id: int) -> str:
        """The text that became certain with `token_id`; "" while a character is incomplete."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode()
        certain = len(text.rstrip(_HALF))
        if certain == len(text):
            new = text[self._given :]
            self._given = len(text)
            if len(self._window) > _WINDOW:
                self._keep(self._window[self._whole :], waiting=0)
            self._whole = len(self._window)
            return new
        if len(self._window) < _WAITING_MOST:
            new = text[self._given : certain]
            self._given = max(self._given, certain)
            return new
        new = text[self._given : -_HALF_MOST]
        self._keep(self._window[-_WINDOW:], waiting=min(_HALF_MOST, len(text) - self._given))
        return new

    def end(self) -> str:
        """What is left: half a character, shown as U+FFFD."""
        return self._decode()[self._given :]

    def _keep(self, window: list[int], waiting: int) -> None:
        self._window, self._whole = window, 0
        self._given = max(0, len(self._decode()) - waiting)

    def _decode(self) -> str:
        text = self._tokenizer.decode(self._window, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
