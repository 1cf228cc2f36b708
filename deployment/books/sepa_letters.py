"""Text as SEPA carries it: Latin letters without marks, digits and a little punctuation. Knows no payment."""

import re

from text_unidecode import unidecode

NAME_LENGTH = 70
NOTE_LENGTH = 140
_FOREIGN = re.compile(r"[^A-Za-z0-9/?:().,'+ -]")


def sepa_text(text: str, length: int) -> str:
    """A text in SEPA's characters, at most so long: letters are transliterated, what else is foreign is a space.

    A slash neither begins nor ends it, and no two stand together, as the rulebooks want it.
    """
    letters = _FOREIGN.sub(" ", unidecode(text))
    words = " ".join(re.sub("/+", "/", letters).split())
    return words[:length].strip(" /")
