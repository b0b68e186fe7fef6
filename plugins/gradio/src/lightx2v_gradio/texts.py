"""The page's own texts in each language: lookup, messages that are rendered later, and errors of the page.

The texts are data, one module for each language: ``texts_en.py`` and ``texts_zh.py``. Messages of the core (plans,
refusals) and summaries of plugins are not in them and stay English.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from lightx2v_core.api import LightX2VError, RequestError
from lightx2v_gradio.texts_en import ENGLISH
from lightx2v_gradio.texts_zh import CHINESE


@frozen
class Message:
    """A text by its key, with the values of its placeholders, for a reader whose language is not known yet."""

    key: str
    values: Mapping[str, Any] = field(factory=dict)


#: a text that is the same in every language, such as one of the core, or a message
Text = str | Message


def message(key: str, **values: Any) -> Message:
    """Build a message; values may be messages themselves."""
    return Message(key, values)


class PageError(RequestError):
    """A request that the page itself refuses. ``str`` gives the English text, for logs and the terminal."""

    def __init__(self, key: str, **values: Any) -> None:
        self.message = Message(key, values)
        super().__init__(TEXTS["en"].show(self.message))


@frozen
class Texts:
    """The texts of one language. ``language`` is its key in ``TEXTS``, ``tag`` its BCP 47 tag."""

    language: str
    tag: str
    catalogue: Mapping[str, str] = field(repr=False)

    def __call__(self, key: str, **values: Any) -> str:
        """Return the text of ``key`` with its placeholders filled in. ``KeyError`` for an unknown key."""
        return self.catalogue[key].format_map({name: self._value(value) for name, value in values.items()})

    def show(self, text: Text) -> str:
        """Render a message; return any other text unchanged."""
        return self(text.key, **text.values) if isinstance(text, Message) else text

    def error(self, exc: LightX2VError) -> str:
        """Render the message of an error; those of the core stay English."""
        return self.show(exc.message) if isinstance(exc, PageError) else str(exc)

    def named(self, prefix: str, name: str) -> str:
        """Return the text of ``prefix.name``, or ``name`` itself where the catalogue has none."""
        return self.catalogue.get(f"{prefix}.{name}", name)

    def duration(self, seconds: float) -> str:
        """Format a duration for people: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
        whole = max(round(seconds), 0)
        if whole < 60:
            return self("duration.seconds", seconds=whole)
        if whole < 3600:
            return self("duration.minutes", minutes=whole // 60, seconds=whole % 60)
        return self("duration.hours", hours=whole // 3600, minutes=whole % 3600 // 60)

    def counted(self, key: str, count: int) -> str:
        """Return the text of ``key.one`` for a count of 1, else of ``key.many``."""
        return self(f"{key}.one" if count == 1 else f"{key}.many", count=count)

    def joined(self, items: list[str]) -> str:
        """Join names with the comma of the language."""
        return self("list.separator").join(items)

    def _value(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return self.joined([str(self._value(item)) for item in value])
        return self.show(value) if isinstance(value, Message) else value


#: language -> its texts; the first one is for browsers that ask for neither
TEXTS: Mapping[str, Texts] = {
    "en": Texts("en", "en", ENGLISH),
    "zh": Texts("zh", "zh-CN", CHINESE),
}
