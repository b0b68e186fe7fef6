"""What code of a plugin may do instead of what it should, as source: the body of a function without arguments."""

from __future__ import annotations

from textwrap import indent

#: before any of the bodies
HEAD = """
import itertools
import sys
import warnings


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Wordless(Exception):
    def __str__(self):
        return 5


class Endless(Exception):
    def __str__(self):
        return "no\\nend " * 2_000_000


class Interrupting(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class Nameless(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")


class Unnamed(Exception, metaclass=Nameless):
    pass


class Classless(Exception):
    @property
    def __class__(self):
        raise SystemExit("no class")


class Closed(Exception):
    def __getattribute__(self, name):
        raise Odd(name)

    def __setattr__(self, name, value):
        raise Odd(name)


class Text(str):
    def __str__(self):
        raise Odd("text")

    __repr__ = __format__ = __hash__ = __eq__ = __len__ = __iter__ = split = strip = encode = __str__


class Object:
    def __repr__(self):
        raise Odd("repr")

    def __iter__(self):
        raise Odd("iter")

    def __bool__(self):
        raise Odd("bool")

    def __eq__(self, other):
        raise Odd("eq")

    def __hash__(self):
        raise Odd("hash")

    def __getattr__(self, name):
        raise Odd(name)


class Liar:
    @property
    def __class__(self):
        raise Odd("class")


class Items(list):
    def __iter__(self):
        return itertools.repeat("x")


def midway():
    yield "first"
    raise Odd("midway")


def deeper():
    return deeper()
"""

#: description -> the exception's name in messages, and the body
RAISED = {
    "an error": ("ValueError", "raise ValueError('no')"),
    "several lines": ("ValueError: two lines", "raise ValueError('two\\nlines')"),
    "an exit": ("SystemExit: 3", "raise SystemExit(3)"),
    "an exit with success": ("SystemExit", "sys.exit()"),
    "an exit with a text": ("SystemExit: bye", "sys.exit('bye')"),
    "the end of a generator": ("GeneratorExit", "raise GeneratorExit"),
    "the end of an iterator": ("StopIteration", "raise StopIteration"),
    "an interruption of its own": ("KeyboardInterrupt", "raise KeyboardInterrupt"),
    "a base exception": ("Odd: no", "raise Odd('no')"),
    "no words": ("Mute", "raise Mute"),
    "words that are not text": ("Wordless", "raise Wordless"),
    "words without end": ("Endless: no end", "raise Endless"),
    "words that interrupt": ("Interrupting", "raise Interrupting"),
    "no name": ("Unnamed", "raise Unnamed('x')"),
    "no class": ("Classless", "raise Classless('x')"),
    "no attributes": ("Closed", "raise Closed"),
    "a text with methods": ("ValueError", "raise ValueError(Text('no'))"),
    "no end of calls": ("RecursionError", "deeper()"),
    "no memory": ("MemoryError", "raise MemoryError"),
    "a warning that is an error": (
        "UserWarning: w",
        "with warnings.catch_warnings():\n    warnings.simplefilter('error')\n    warnings.warn('w')",
    ),
    "something that is none": ("TypeError", "raise 5"),
    "a cause that is as bad": ("Mute", "raise Mute from Closed()"),
}

#: what it answers -> the body
ANSWERED = {
    "nothing": "return None",
    "a number": "return 7",
    "a number that is none": "return float('nan')",
    "true": "return True",
    "a text": "return 'x'",
    "a long text": "return 'x\\n' * 5_000_000",
    "a text with methods": "return Text('x')",
    "bytes": "return b'x'",
    "a dict": "return {1: 2}",
    "a list": "return [1, None]",
    "a list of texts with methods": "return [Text('x')]",
    "a list of objects": "return [Object()]",
    "a list that has no end": "return Items('x')",
    "no end": "return itertools.count()",
    "no end of texts": "return itertools.repeat('x' * 1000)",
    "half of it": "return midway()",
    "an object": "return Object()",
    "a liar": "return Liar()",
    "a class": "return Object",
    "a function": "return deeper",
    "itself": "loop = []\nloop.append(loop)\nreturn loop",
}


def function(name: str, body: str, parameters: str = "*arguments, **named") -> str:
    """The source of a function."""
    return f"\n\ndef {name}({parameters}):\n{indent(body, '    ')}\n"
