"""Token ids to text while they arrive, in whole characters only and at a cost that does not grow with the reply.

`"".join(pushed) + end()` is what decoding all the ids at once gives; among bytes that are no text it may hold more, as
SentencePiece's decoder gives up whole characters beside them.
"""

import re
from typing import TYPE_CHECKING

from trainer.tool_calls import is_mark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Half a character decodes to this. SentencePiece's byte tokens give one for each of at most 3 bytes.
_HALF = "�"
_HALF_MOST = 3
# Only bytes that are no text at all keep so many ids waiting.
_WAITING_MOST = 32
_WINDOW = 8
# What is text also where a tokenizer marks it as special: what thoughts are told from the answer by, and bytes.
_TEXT = re.compile("</?think>|<0x[0-9A-F]{2}>")


class Detokenizer:
    """Decodes a sliding window of ids: a decoder strips the first token's space, so new text needs its neighbours.

    The window begins where a character does: byte tokens torn apart would spoil the ones beside them.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", skip_special_tokens: bool = True, calls: bool = False
    ) -> None:
        """`calls`: the text may hold calls of tools, whose marks are not skipped."""
        self._tokenizer = tokenizer
        self._skipped = _special_ids(tokenizer, calls) if skip_special_tokens else frozenset[int]()
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


def _special_ids(tokenizer: "PreTrainedTokenizerBase", calls: bool) -> frozenset[int]:
    """Of the tokens that belong to no text; a tokenizer's own list lacks those that its file alone marks as special."""
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    special |= {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(
        number for number, text in special.items() if not (_TEXT.fullmatch(text) or (calls and is_mark(text)))
    )
