"""Token ids to text while they arrive, in whole characters only and at a cost that does not grow with the reply.

`"".join(pushed) + end()` is what decoding all the ids at once gives.
"""

from collections.abc import Collection

from transformers import PreTrainedTokenizerBase

# Half a character decodes to this. SentencePiece's byte tokens give one for each of at most 3 bytes.
_HALF = "�"
_HALF_MOST = 3
_WINDOW_MOST = 32
_WINDOW_LEAST = 8


class Detokenizer:
    """Decodes a sliding window of ids: a decoder strips the first token's space, so new text needs its neighbours."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped: Collection[int] = frozenset(tokenizer.all_special_ids) if skip_special_tokens else ()
        self._window: list[int] = []
        self._given = 0  # Characters of the window's text that have been given out.
        self._last_whole = 0  # The last place in the window, but for its end's neighbours, where no character is split.

    def push(self, token_id: int) -> str:
        """The text that became certain with `token_id`; "" while a character is incomplete."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        whole = len(text.rstrip(_HALF))
        full = len(self._window) >= _WINDOW_MOST
        if full:  # Only bytes that are no text at all keep so many ids waiting.
            whole = max(whole, len(text) - _HALF_MOST)
        new = text[self._given : whole]
        self._given = max(self._given, whole)
        if whole == len(text) and len(self._window) <= _WINDOW_MOST - _WINDOW_LEAST:
            self._last_whole = len(self._window)
        if full:
            self._shrink(len(text) - self._given)
        return new

    def end(self) -> str:
        """What is left: half a character, shown as U+FFFD."""
        return self._decode(self._window)[self._given :]

    def _shrink(self, held: int) -> None:
        # Cut between characters, where there is one: byte tokens torn apart would spoil their neighbours.
        self._window = self._window[self._last_whole or -_WINDOW_LEAST :]
        self._last_whole = 0
        self._given = max(0, len(self._decode(self._window)) - held)

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
