"""A provider's own words in an error, fit for logs: short, printable, without numbers that name an account."""

import re
from typing import Final

from providers.decoding import own_words

#: Six or more digits, however grouped: a card, an account, a sort code, a telephone.
_NUMBER: Final = re.compile(r"\d(?:[ \-]?\d){5,}")

#: A credential by its look: a known prefix, or a long run of letters with digits in it.
_CREDENTIAL: Final = re.compile(r"\b(?:sk|pk|bk|whsec)_\w+|(?=[^\s\d]*\d)[\w+/=\-]{24,}", re.ASCII)


def masked_words(text: object) -> str:
    """One printable line of at most 200 characters in which numbers of accounts and credentials are masked.

    Empty for anything but text. Amounts below six digits stay, since they help a reader.
    """
    return _NUMBER.sub("[number]", _CREDENTIAL.sub("[secret]", own_words(text)))[:200]
