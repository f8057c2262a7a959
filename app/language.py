"""Which of the page's languages a browser gets: the one chosen before, else the first that it asks for."""

from http.cookies import CookieError, SimpleCookie

from trainer.problems import LANGUAGES, Language

COOKIE = "tunedesk-language"


def language_of(cookie_header: str, accept_language: str) -> Language:
    """The remembered language, else the best of Accept-Language, else English."""
    try:
        remembered = SimpleCookie(cookie_header).get(COOKIE)
    except CookieError:
        remembered = None
    for language in LANGUAGES:
        if remembered is not None and remembered.value == language:
            return language
    return _accepted(accept_language)


def _accepted(header: str) -> Language:
    """Accept-Language as RFC 9110 has it: `zh-CN,zh;q=0.9,en;q=0.8`."""
    ranked = []
    for part in header.split(","):
        name, _, weight = part.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), name.strip().lower()))
        except ValueError:
            continue  # a malformed weight: that entry says nothing
    for _, name in sorted(ranked, key=lambda item: item[0]):
        for language in LANGUAGES:
            if name.split("-")[0] == language:
                return language
    return "en"
