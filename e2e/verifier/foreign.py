"""JSON from outside: each value knows the path that led to it, so an error can name what is wrong.

Numbers may come as decimal strings, null means missing, unknown fields are not looked at.
"""

import json
import re

LARGEST_JSON = 256 << 20
LARGEST_LINE = 4096
DIGITS = re.compile(r"-?[0-9]{1,40}\Z")
WORD = re.compile(r"[!-~]{1,200}\Z")
_REQUIRED = object()


class Unreadable(Exception):
    """Input that cannot be judged: which file, where in it, what is wrong."""

    def __init__(self, file, where, what):
        super().__init__(f"{file}: {where + ': ' if where else ''}{what}")


class Value:
    """One JSON value and its path."""

    def __init__(self, file, raw, path=""):
        self.file, self.raw, self.path = file, raw, path

    def wrong(self, what):
        """The error to raise about this value."""
        return Unreadable(self.file, self.path or "top level", what)

    def field(self, name):
        """A member of an object; missing members are null."""
        if not isinstance(self.raw, dict):
            raise self.wrong("must be an object")
        return Value(self.file, self.raw.get(name), f"{self.path}.{name}".lstrip("."))

    def has(self, name):
        """Whether a member is there and not null."""
        return self.field(name).raw is not None

    def _default(self, default):
        if default is _REQUIRED:
            raise self.wrong("missing")
        return default

    def integer(self, default=_REQUIRED):
        """A whole number, as number or decimal string."""
        if self.raw is None:
            return self._default(default)
        if isinstance(self.raw, int) and not isinstance(self.raw, bool):
            return self.raw
        if isinstance(self.raw, str) and DIGITS.match(self.raw):
            return int(self.raw)
        raise self.wrong(f"must be a whole number, is {short(self.raw)}")

    def natural(self, default=_REQUIRED):
        """A whole number that is not negative."""
        value = self.integer(default)
        if value is not None and value < 0:
            raise self.wrong(f"must not be negative, is {value}")
        return value

    def number(self, default=_REQUIRED):
        """A real number, as number or decimal string."""
        if self.raw is None:
            return self._default(default)
        try:
            if not isinstance(self.raw, bool):
                return float(self.raw)
        except (TypeError, ValueError):
            pass
        raise self.wrong(f"must be a number, is {short(self.raw)}")

    def text(self, default=_REQUIRED):
        """A string."""
        if self.raw is None:
            return self._default(default)
        if not isinstance(self.raw, str):
            raise self.wrong(f"must be a string, is {short(self.raw)}")
        if any("\ud800" <= c <= "\udfff" for c in self.raw):
            raise self.wrong("is not valid Unicode")
        return self.raw

    def word(self, default=_REQUIRED):
        """A name that is safe to print: ASCII without spaces or control characters."""
        text = self.text(default)
        if text is not None and not WORD.match(text):
            raise self.wrong(f"must be 1 to 200 printable characters without spaces, is {short(text)}")
        return text

    def ngonka(self, default=_REQUIRED):
        """An amount: a decimal string, so that no reader loses digits."""
        if self.raw is None:
            return self._default(default)
        if not isinstance(self.raw, str) or not DIGITS.match(self.raw):
            raise self.wrong(f"must be a decimal string, is {short(self.raw)}")
        return self.natural()

    def boolean(self, default=_REQUIRED):
        """true or false."""
        if self.raw is None:
            return self._default(default)
        if not isinstance(self.raw, bool):
            raise self.wrong(f"must be true or false, is {short(self.raw)}")
        return self.raw

    def items(self):
        """The elements of a list; a missing list is empty."""
        if self.raw is None:
            return []
        if not isinstance(self.raw, list):
            raise self.wrong("must be a list")
        return [Value(self.file, raw, f"{self.path}[{i}]") for i, raw in enumerate(self.raw)]

    def members(self):
        """(name, value) of an object's members; a missing object has none."""
        if self.raw is None:
            return []
        if not isinstance(self.raw, dict):
            raise self.wrong("must be an object")
        return [(name, Value(self.file, raw, f"{self.path}[{name}]")) for name, raw in self.raw.items()]


def short(raw):
    """A foreign value for a message, cut to a sane length."""
    text = json.dumps(raw, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def load(path, name=None):
    """A whole JSON file as a Value."""
    name = name or str(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise Unreadable(name, "", f"larger than {LARGEST_JSON} bytes")
        return Value(name, json.loads(path.read_bytes()))
    except OSError as error:
        raise Unreadable(name, "", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(name, "", f"is not JSON ({error})") from error


def lines(path, name):
    """Each line of a JSON-lines file as a Value whose path is the line number."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LARGEST_LINE + 1), b""), 1):
                if len(line) > LARGEST_LINE:
                    raise Unreadable(name, f"line {number}", f"longer than {LARGEST_LINE} bytes")
                if line.strip():
                    yield Value(name, json.loads(line), f"line {number}")
    except OSError as error:
        raise Unreadable(name, "", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(name, f"line {number}", f"is not JSON ({error})") from error
