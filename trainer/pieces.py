"""Pieces of a text → token ids: as in the whole text, but control tokens typed by somebody stay text."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trainer.detokenizer import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that answers hold on purpose, also where a tokenizer marks them as special.
_MARKUP = re.compile(r"</?(think|tool_call|tool_response)>")
# Where the two ways of calling a tokenizer might differ, if they do: added tokens, spaces, bytes, nothing.
_SAMPLES = ("", " a b  c\n\n", "\na", "Aé中😀\u0301", "<s>a</s> b<|im_end|>\n")


class Piece(NamedTuple):
    """Text that is tokenized on its own. `own`: it goes on from the piece before it, in the middle of a text."""

    text: str
    goes_on: bool


class Tokens:
    """A tokenizer as templates need it. `added`: text → special?, of the tokens outside its vocabulary, longest first."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.added = _added_tokens(tokenizer)
        self._begins_anew = tuple(self.added)  # a text after an added token is one of its own to the tokenizer
        self._fast = False
        self._fast = self._agrees_when_fast()
        self._prefix = self._probe_prefix()
        self._prefix_ids = self.ids([self._prefix])[0] if self._prefix else []

    def control_pattern(self, written: str) -> re.Pattern[str]:
        """Finds the first character of each control token's text: of tokens that only the template may write.

        `written`: what the template itself writes.
        """
        rests: dict[str, list[str]] = {}
        for token, special in self.added.items():
            if len(token) > 1 and (special or token in written) and not _MARKUP.fullmatch(token):
                rests.setdefault(token[0], []).append(re.escape(token[1:]))
        # Branches that begin with one character each let the search skip all others: 20 times faster on long texts.
        return re.compile("|".join(f"{re.escape(a)}(?={'|'.join(rest)})" for a, rest in rests.items()) or r"(?!)")

    def ids_of_tokens(self, tokens: list[str]) -> list[int]:
        ids = self.tokenizer.convert_tokens_to_ids(tokens)
        assert isinstance(ids, list)
        return ids

    def ids(
        self, texts: list[str], known: dict[str, list[int]] | None = None, special_tokens: bool = False
    ) -> list[list[int]]:
        """The token ids of each text. `known`: remembered from before, and what is new is added to it.

        `special_tokens`: with those that the tokenizer puts around a text.
        """
        if known is not None:
            missing = [text for text in texts if text not in known]
            known.update(zip(missing, self.ids(missing), strict=True))
            return [known[text] for text in texts]
        if not texts:
            return []
        if self._fast:
            backend = self.tokenizer.backend_tokenizer
            if backend.truncation is None and backend.padding is None:
                encoded = backend.encode_batch_fast(texts, add_special_tokens=special_tokens)
                return [encoding.ids for encoding in encoded]
        return self._ids_slowly(texts, special_tokens)

    def of_pieces(
        self, pieces: Sequence[Sequence[str]], known: dict[str, list[int]] | None = None
    ) -> list[list[list[int]]]:
        """The token ids of each piece of each text. All are tokenized in one call, but those `known`."""
        texts = [piece for each in pieces for piece in each]
        if not self._prefix:
            ids = self.ids(texts, known)
        else:
            goes_on = [
                n > 0 and not each[n - 1].endswith(self._begins_anew) for each in pieces for n in range(len(each))
            ]
            ids = self._ids_going_on(texts, goes_on, known)
        remaining = iter(ids)
        return [[next(remaining) for _ in each] for each in pieces]

    def texts(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; "" for one that leaves a character incomplete."""
        detokenizer = Detokenizer(self.tokenizer, skip_special_tokens=False)
        texts = [detokenizer.push(token) for token in ids]
        if texts:
            texts[-1] += detokenizer.end()
        return texts

    def _ids_slowly(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        return self.tokenizer(
            texts, add_special_tokens=special_tokens, return_attention_mask=False, verbose=False, truncation=False
        )["input_ids"]

    def _agrees_when_fast(self) -> bool:
        """Whether the tokenizer's own library gives the ids that transformers gives, in half the time and memory."""
        if not getattr(self.tokenizer, "is_fast", False) or type(self.tokenizer)._encode_plus is not _library_encode():
            return False
        texts = [*_SAMPLES, "".join(self.added)]
        slowly = [self._ids_slowly(texts, special) for special in (False, True)]
        self._fast = True
        return [self.ids(texts, None, special) for special in (False, True)] == slowly

    def _ids_going_on(
        self, texts: list[str], goes_on: list[bool], known: dict[str, list[int]] | None
    ) -> list[list[int]]:
        ids = self.ids([self._prefix + text if on else text for text, on in zip(texts, goes_on, strict=True)], known)
        length = len(self._prefix_ids)
        for position, on in enumerate(goes_on):
            if on and ids[position][:length] == self._prefix_ids:
                ids[position] = ids[position][length:]
            elif on:  # the prefix grew together with the text
                ids[position] = self.ids([texts[position]])[0]
        return ids

    def _probe_prefix(self) -> str:
        """What to put before a text that goes on from another, for a tokenizer that begins every text with a space."""
        ids = self.ids(["\na", "\n", "a"])
        return "" if ids[0] == ids[1] + ids[2] else "\n"


def _library_encode() -> object:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast._encode_plus


def _added_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, bool]:
    found = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    found |= dict.fromkeys(tokenizer.all_special_tokens, True)
    return dict(sorted(((text, special) for text, special in found.items() if text.strip()), key=lambda i: -len(i[0])))
