"""Masking of error messages: short, printable, without account numbers."""

import re
from typing import Final

from providers.decoding import own_words

#: Six or more digits, however grouped: a card, an account, a sort code, a telephone.
_NUMBER: Final = re.compile(r"\d(?:[ \-]?\d){5,}")

#: A credential by its look: a known prefix, or a long run of letters with digits in it.
_CREDENTIAL: Final = re.compile(r"\b(?:sk|pk|bk|whsec)_\w+|(?=[^\s\d]*\d)[\w+/=\-]{24,}", re.ASCII)


def masked_words(text: object) -> str:
    """Return one printable line of 200 characters with account numbers masked.

    Empty for anything but text. Amounts below six digits stay, since they help a reader.
    """
    return _NUMBER.sub("[number]", _CREDENTIAL.sub("[secret]", own_words(text)))[:200]
