"""A secret is followed to its value, and shown by nothing."""

import copy
import pickle

import pytest
from pydantic import BaseModel

from receipted.settings.secrets import Secret, SecretReader

VALUE = "the-value-itself"


class Holder(BaseModel):
    secret: Secret


def test_a_variable_is_followed():
    secret = SecretReader({"NAME": VALUE}).read("env:NAME")
    assert (secret.reveal(), secret.size_bytes(), secret.reference, secret.problem) == (VALUE, 16, "env:NAME", "")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_file_is_followed_without_its_line_ending(tmp_path, ending):
    (tmp_path / "key").write_bytes(f"{VALUE}{ending}".encode())
    assert SecretReader(base=tmp_path).read("file:key").reveal() == VALUE
    assert SecretReader().read(f"file:{tmp_path}/key").reveal() == VALUE


#: What nobody sees in an editor or a terminal, and how it is told.
INVISIBLE = {
    " ": "U+0020",
    "\t": "U+0009",
    "\r": "U+000D",
    "\n": "U+000A",
    "\x07": "U+0007",
    "\x7f": "U+007F",
    "\x85": "U+0085",
    "\xa0": "U+00A0",
    "\xad": "U+00AD",
    "\u200b": "U+200B",
    "\u200d": "U+200D",
    "\u202e": "U+202E",
    "\u2028": "U+2028",
    "\u3000": "U+3000",
    "\ufeff": "U+FEFF",
    "\ue000": "U+E000",
    "\U000e0020": "U+E0020",
}


@pytest.mark.parametrize("letter", INVISIBLE)
@pytest.mark.parametrize("kind", ["env", "file", "plain"])
@pytest.mark.parametrize("end", ["begins", "ends"])
def test_what_nobody_sees_at_an_end_of_a_secret_is_a_problem_without_the_value(tmp_path, letter, kind, end):
    value = f"{letter}{VALUE}" if end == "begins" else f"{VALUE}{letter}"
    (tmp_path / "key").write_bytes(value.encode())
    reference = {"env": "env:NAME", "file": "file:key", "plain": f"plain:{value}"}[kind]
    secret = SecretReader({"NAME": value}, tmp_path).read(reference)
    if kind == "file" and end == "ends" and letter in "\r\n":
        assert secret.reveal() == VALUE  # editors end a file so
        return
    assert f"{end} with a character that cannot be seen ({INVISIBLE[letter]})" in secret.problem
    assert secret.reference in secret.problem
    assert VALUE not in secret.problem + secret.remedy + secret.reference


@pytest.mark.parametrize("value", ["a b", "ключ-ключ-ключ", "a\u200db", "{}", "-", "é"])
def test_what_stands_within_a_secret_is_part_of_it(value):
    assert SecretReader({"NAME": value}).read("env:NAME").reveal() == value


@pytest.mark.parametrize(("mode", "is_exposed"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_read_is_noticed(tmp_path, mode, is_exposed):
    (tmp_path / "key").write_text(VALUE)
    (tmp_path / "key").chmod(mode)
    assert SecretReader(base=tmp_path).read("file:key").is_exposed is is_exposed


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "not text"), (b"x" * 70_000, "larger")]
)
def test_a_file_without_a_secret_is_a_problem(tmp_path, content, problem):
    (tmp_path / "key").write_bytes(content)
    secret = SecretReader(base=tmp_path).read("file:key")
    assert problem in secret.problem
    assert secret.remedy


@pytest.mark.parametrize(
    "text",
    ["file:absent", "file:.", "file:", "file:a\0b", "env:UNSET", "env:", "env:no-name", "env:sk_live_abcdefgh", ""],
)
def test_what_leads_nowhere_is_a_problem_with_a_remedy(text, tmp_path):
    secret = SecretReader({}, tmp_path).read(text)
    assert secret.problem
    assert secret.remedy
    assert "sk_live" not in secret.problem + secret.reference
    with pytest.raises(ValueError, match="the secret"):
        secret.reveal()


@pytest.mark.parametrize("text", [VALUE, f"evn:{VALUE}", f"plain:{VALUE}", {"a": VALUE}, [VALUE], VALUE.encode(), 5])
def test_a_literal_is_repeated_nowhere(text):
    secret = SecretReader().read(text)
    holder = Holder(secret=secret)
    shown = [secret.reference, secret.problem, secret.remedy]
    for it in (secret, holder):
        shown += [repr(it), str(it), f"{it}"]
    shown += [holder.model_dump_json(), str(holder.model_dump()), str(holder.model_dump(mode="json"))]
    assert not [text for text in shown if VALUE in text]


def test_a_secret_is_compared_by_what_it_holds():
    one, same = (SecretReader({"A": VALUE}).read("env:A") for _ in range(2))
    other = SecretReader({"A": "another-value"}).read("env:A")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != VALUE


def test_a_secret_is_copied_as_itself_and_never_pickled():
    secret = SecretReader({"A": VALUE}).read("env:A")
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_a_model_made_without_a_reader_knows_no_variables():
    assert "not set" in Holder.model_validate({"secret": "env:HOME"}).secret.problem
