"""Exit codes, and the one place that turns a failure into a line and a code.

`receipted --help` imports this and little more: what takes long to import is imported where it is used.
"""

import io
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import typer
from typer._click.exceptions import NoArgsIsHelpError
from typer.core import TyperGroup

from receipted.errors import ConfigurationError
from service.errors import UnknownAccountName
from statemachine.errors import ServiceError
from storage.errors import NotFound, SchemaOutdated


class Exit(IntEnum):
    """Exit codes of commands; a test compares them with `receipted --help`."""

    DONE = 0  #: what was asked for is done
    FAILED = 1  #: the provider refused, storage is away, a process ended by a bug
    USAGE = 2  #: wrong usage or wrong settings; nothing was done
    SCHEMA = 3  #: the database needs `receipted migrate`
    AUDIT = 4  #: `receipted audit verify` found a row that is wrong
    NOT_FOUND = 5  #: no such payment, message or account
    BUG = 70  #: an unexpected exception; the log on stderr has it
    INTERRUPTED = 130  #: Ctrl-C before the command was done


#: For `receipted --help`.
EXIT_CODES: Final = """\b
Exit codes:
  0    done
  1    failed: the provider refused, storage is away, a process ended by a bug
  2    wrong usage or wrong settings; nothing was done
  3    the database's schema is outdated: run receipted migrate
  4    receipted audit verify found a row that is wrong
  5    no such payment, message or account
  70   an unexpected error; the log on stderr has it
  130  interrupted before the command was done"""


def example(*lines: str) -> str:
    """Format examples for the end of a command's help."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


class InvalidInput(ServiceError):
    """An argument or option makes no sense here."""

    type = "invalid_request_error"
    code = "invalid_input"
    status = 400


def exit_code(error: ServiceError) -> Exit:
    """Return the exit code for a named failure."""
    from providers.errors import ProviderError, UnsupportedByProvider  # noqa: PLC0415 - see the module

    if isinstance(error, SchemaOutdated):
        return Exit.SCHEMA
    if isinstance(error, NotFound | UnknownAccountName):
        return Exit.NOT_FOUND
    if isinstance(error, ConfigurationError):
        return Exit.USAGE
    if isinstance(error, ProviderError | UnsupportedByProvider):
        return Exit.FAILED
    return Exit.USAGE if error.type == "invalid_request_error" else Exit.FAILED


class ReceiptedGroup(TyperGroup):
    """Root command: every failure ends in a clear message and an exit code.

    Named failures are one line on stderr, or with --json the JSON error shape on stdout. Anything else is a bug: its
    traceback goes through the log's redaction.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run one command and leave the process with its code."""
        _escape_unencodable()
        given = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        sys.exit(self._run(given, rest, options, as_json="--json" in given))

    def _run(self, args: list[str], rest: tuple[Any, ...], options: dict[str, Any], *, as_json: bool) -> int:
        try:
            code = super().main(list(map(_decode_word, args)), *rest, **options)
            return code if isinstance(code, int) else Exit.DONE
        except NoArgsIsHelpError as alone:
            sys.stderr.write(f"{alone.format_message()}\n")  # wrong usage, answered with what there is
            return Exit.USAGE
        except ServiceError as error:
            return _failed(error, exit_code(error), as_json=as_json)
        except typer.TyperException as error:
            return _usage(error, as_json=as_json)
        except (typer.Abort, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
            return Exit.INTERRUPTED
        except Exception:
            import structlog  # noqa: PLC0415 - see the module

            if not structlog.is_configured():  # before the settings were read: the default shows every local variable
                from receipted import logs  # noqa: PLC0415 - see the module

                logs.configure("warning", "console" if sys.stderr.isatty() else "json")
            log = structlog.get_logger()
            log.exception("service.failed")
            unexpected = ServiceError("an unexpected error; the log on stderr has it")
            return _failed(unexpected, Exit.BUG, as_json=as_json)


def _decode_word(word: str) -> str:
    """Decode a word of the command line as UTF-8, whatever the locale.

    Raises InvalidInput for bytes that are no text in either.
    """
    try:
        return os.fsencode(word).decode()
    except UnicodeError:
        if word.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in word):
            return word
        raise InvalidInput("a word of the command is no text in UTF-8", code="usage") from None


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Report wrong usage in the parser's words, and name the --help to read."""
    context = getattr(error, "ctx", None)
    if context is not None and not as_json:
        sys.stderr.write(f"{context.get_usage()}\nTry '{context.command_path} --help' for an example.\n")
    return _failed(InvalidInput(error.format_message(), code="usage"), Exit.USAGE, as_json=as_json)


def _failed(error: ServiceError, code: Exit, *, as_json: bool) -> Exit:
    from receipted.cli import output  # noqa: PLC0415 - see the module

    output.print_error(error, as_json=as_json)
    return code


def _escape_unencodable() -> None:
    """Write characters that a stream cannot encode as escapes; output never fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
