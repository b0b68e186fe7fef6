"""Every function of every kind of spec, with all it may raise and answer instead: one line, or a right answer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

import attrs
import click
import pytest

from lightx2v_core.api import NoOptions, RequestError, hookimpl
from lightx2v_core.discovery.answers import _ANSWERS, Built, Reason, taken
from lightx2v_core.discovery.isolation import LONGEST, called
from lightx2v_core.discovery.plugins import Provided, collected
from lightx2v_core.errors import PluginFault
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.hooks import KINDS
from lightx2v_core.spec.specs import Spec

from .hostile import ANSWERED, HEAD, RAISED, function

#: fields without a default, besides functions
NEEDED: dict[str, dict[str, Any]] = {
    "weight_loader": {"suffixes": (".x",)},
    "quantizer": {"formats": frozenset({"x"})},
    "model": {"tasks": {}, "components": ()},
}
#: every function of every kind
FUNCTIONS = [
    (kind, field.name)
    for kind, (_, cls) in KINDS.items()
    for field in attrs.fields(cls)
    if field.name in _ANSWERS
]


def made(source: str) -> Callable[..., Any]:
    """The function that some source defines."""
    names: dict[str, Any] = {}
    exec(HEAD + source, names)
    found: Callable[..., Any] = names["odd"]
    return found


def spec_with(kind: str, name: str, given: Callable[..., Any]) -> Spec[Any]:
    """A spec of a plugin ``evil`` that has this function, as the core gets it."""
    hook, cls = KINDS[kind]
    needed = {
        field.name: print
        for field in attrs.fields(cls)
        if field.name in _ANSWERS and field.default is attrs.NOTHING
    }
    spec = cls(**{"name": "odd", "summary": "x", **needed, **NEEDED.get(kind, {}), name: given})
    return provided(hook, spec).spec


def provided(hook: str, spec: Spec[Any]) -> Provided:
    """What the core makes of a spec that a plugin ``evil`` gives."""

    def give() -> list[Any]:
        return [spec]

    module = ModuleType("evil_module")
    setattr(module, hook, hookimpl(give, specname=hook))
    (found,) = collected({"evil": module})["evil"].provides
    return found


def is_plain(value: Any, hint: Any) -> bool:
    """Whether a value is what a hint says, and made of plain values where texts and lists are meant."""
    inner = get_args(hint)
    if hint in (str, Reason):
        return type(value) is str and (hint is str or (len(value) <= LONGEST and "\n" not in value))
    if hint is Any or hint is Built:
        return hint is Any or value is not None
    if get_origin(hint) in (Sequence, tuple):
        return type(value) is tuple and all(is_plain(item, inner[0]) for item in value)
    if get_origin(hint) is Mapping:
        return type(value) is dict and all(is_plain(item, inner[1]) for item in value.values())
    if inner:
        return any(is_plain(value, one) for one in inner)
    return value is None if hint is type(None) else isinstance(value, hint)


@pytest.mark.parametrize("what", RAISED)
@pytest.mark.parametrize(("kind", "name"), FUNCTIONS)
def test_what_it_raises_is_told_in_one_line(kind: str, name: str, what: str) -> None:
    told, body = RAISED[what]
    spec = spec_with(kind, name, made(function("odd", body)))
    with pytest.raises(PluginFault) as caught:
        getattr(spec, name)()
    assert str(caught.value).startswith(f"plugin evil: {name} of {kind} odd failed: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2 * LONGEST
    assert caught.value.exit_status == (1 if name in ("build", "write_tiny") else 2)


@pytest.mark.parametrize("what", ANSWERED)
@pytest.mark.parametrize(("kind", "name"), FUNCTIONS)
def test_what_it_answers_is_right_or_told_in_one_line(kind: str, name: str, what: str) -> None:
    spec = spec_with(kind, name, made(function("odd", ANSWERED[what])))
    answer, told = None, ""
    try:
        answer = getattr(spec, name)()
    except PluginFault as exc:
        told = str(exc)
    if told:
        assert told.startswith(f"plugin evil: {name} of {kind} odd failed: ")
        assert "\n" not in told
        assert len(told) < 2 * LONGEST
    else:
        assert is_plain(answer, _ANSWERS[name]())


@pytest.mark.parametrize("what", [*RAISED, *ANSWERED])
def test_reasons_against_it_are_texts(what: str) -> None:
    body = RAISED[what][1] if what in RAISED else ANSWERED[what]
    hook, cls = KINDS["attention"]
    spec = cls(name="odd", summary="x", build=print, unusable=made(function("odd", body)))
    reasons = provided(hook, spec).reasons(BuildContext())
    assert all(
        type(reason) is str and len(reason) <= 2 * LONGEST and "\n" not in reason for reason in reasons
    )
    assert reasons, "it said nothing that can be relied on, and was taken to be usable"


def test_what_opens_files_is_a_function_of_the_plugin_too() -> None:
    spec: Any = spec_with("weight_loader", "build", lambda: lambda header: sys.exit(3))
    with pytest.raises(
        PluginFault, match=r"^plugin evil: build of weight_loader odd failed: SystemExit: 3$"
    ) as caught:
        spec.build()(None)
    assert caught.value.exit_status == 1


def test_errors_for_users_pass_with_a_message_that_is_one() -> None:
    class Mine(RequestError):
        pass

    class Mute(RequestError):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Liar(RequestError):
        exit_status: Any = "0"

    def raising(exc: BaseException) -> Callable[[], None]:
        def odd() -> None:
            raise exc

        return odd

    for exc in (RequestError("two\nlines"), Mine("no")):
        with pytest.raises(RequestError) as caught:
            called("x", raising(exc))
        assert caught.value is exc
    for exc, text in (
        (Mute(), "Mute, without a message"),
        (Liar("no"), "no"),
        (RequestError("x" * 10**7), "x" * 3997 + "..."),
        (Mine("x\n" * 10**6), "\n".join("x" * 20)),
    ):
        with pytest.raises(RequestError) as caught:
            called("x", raising(exc))
        assert (str(caught.value), caught.value.exit_status, type(caught.value)) == (text, 2, RequestError)


@pytest.mark.load
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), number)\ntime.sleep(30)",
        "try:\n    os.kill(os.getpid(), number)\n    time.sleep(30)\nexcept BaseException:\n    pass",
        "try:\n    os.kill(os.getpid(), number)\n    time.sleep(30)\nexcept BaseException:\n    raise ValueError",
        "class Slow(Exception):\n    def __str__(self):\n        os.kill(os.getpid(), number)\n        time.sleep(30)\n"
        "raise Slow",
    ],
    ids=["passed", "swallowed", "changed", "in a message"],
)
def test_a_signal_interrupts_it(number: signal.Signals, code: str, stopping: None) -> None:
    given = made(f"import os, signal, time\nnumber = {int(number)}" + function("odd", code))
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        called("x", given)
    assert signal.getsignal(number) is handler


@pytest.fixture
def stopping() -> Iterator[None]:
    """SIGTERM interrupts, as it does in a run."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def test_streams_and_handlers_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    def odd() -> None:
        print("for a program?")  # noqa: T201
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    streams, handler = (sys.stdout, sys.stderr), signal.getsignal(signal.SIGINT)
    called("x", odd)
    assert (sys.stdout, sys.stderr) == streams
    assert signal.getsignal(signal.SIGINT) is handler
    print("seen")  # noqa: T201
    assert capsys.readouterr() == ("seen\n", "for a program?\n")


def test_plain_values_are_taken_as_they_are() -> None:
    from lightx2v_core.spec.memory import OffloadForecast
    from lightx2v_core.spec.recognition import Geometry

    geometry = Geometry(latent_shape=(1, 2), tokens=3, width=4, height=5, frames=6)
    assert taken(geometry, Geometry) is geometry
    loose: Any = attrs.evolve(geometry, latent_shape=[1, 2])
    assert taken(loose, Geometry) == geometry
    assert taken(OffloadForecast(weights=1, activations=2, exposed=3), OffloadForecast).exposed == 3
    data = {"a": (1, 2)}
    assert taken(data, Mapping[str, tuple[int, ...]]) is data
    with pytest.raises(TypeError, match="not Path"):
        taken("x", Path)
    command = click.Command("x")
    assert taken(command, click.Command) is command
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        taken(attrs.evolve(geometry, width="x"), Geometry)


def test_options_that_cannot_be_made() -> None:
    from lightx2v_core.discovery.answers import default_options

    @attrs.frozen
    class Options(NoOptions):
        def __attrs_post_init__(self) -> None:
            raise SystemExit(3)

    spec: Any = spec_with("attention", "build", print)
    with pytest.raises(PluginFault, match=r"Options\(\) of odd failed: SystemExit: 3"):
        default_options(attrs.evolve(spec, config=Options))
