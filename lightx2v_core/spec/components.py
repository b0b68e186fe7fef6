"""What a model is made of, as data: components, their files and layouts, tasks, and where to get it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen
from attrs import validators as v


@frozen(kw_only=True)
class KeyMap:
    """How another layout names the tensors of a component.

    ``renames`` are regular expressions and replacements, applied to a stored name one after the other. A result such
    as ``attn.to_qkv.weight#q`` is a part: the parts named in ``joins`` are put together along the first axis.
    """

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    #: regular expressions of stored names that are marks and not weights
    drops: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    #: regular expressions and replacements that make stored names of official ones, for writing this layout; absent:
    #: it is only read. A name with ``#`` is written once for each of ``joins``, with that part of its rows
    reverse: tuple[tuple[str, str], ...] = ()
    #: regular expressions of official names that are left out when this layout is written
    omits: tuple[str, ...] = ()
    #: regular expressions of stored names that are written without their axes of length one
    squeezes: tuple[str, ...] = ()
    #: the ``config.json`` that goes with this layout, from the official one and the shapes of the official tensors
    config: Callable[[Mapping[str, object], Mapping[str, tuple[int, ...]]], Mapping[str, object]] | None = (
        None
    )


def _asset_paths(value: Mapping[str, str | tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    return {name: (paths,) if isinstance(paths, str) else tuple(paths) for name, paths in value.items()}


@frozen(kw_only=True)
class ComponentSpec:
    """One part of a model and where its files are, as data."""

    #: ``dit``, ``text_encoder``, ``vae``, ...
    name: str
    summary: str
    #: file names or globs inside the model folder, tried in order; an index file beside shards is followed
    files: tuple[str, ...]
    #: further globs, for when none of ``files`` gives what is wanted; needs a signature
    fallback: tuple[str, ...] = ()
    #: official names that only a file of this component has; without them, file names alone decide
    signature: tuple[str, ...] = ()
    #: other layouts than the official one
    layouts: tuple[KeyMap, ...] = ()
    #: other files it needs: name -> where it may be inside the model's folder or beside the weights
    assets: Mapping[str, tuple[str, ...]] = field(factory=dict, converter=_asset_paths)
    #: what to do when it is missing, such as where to get it
    hint: str = ""
    #: False for files that officially hold more than the model uses
    whole: bool = True
    #: regular expressions of tensors that a file may hold and the model does without
    spare: tuple[str, ...] = ()
    #: True for a network that decides what the model is: when there are several, one has to be asked for
    main: bool = False
    #: regular expressions of the layers that are quantized when a plain file is; None: every two-dimensional weight
    #: of a numbered block that is no norm and no embedding
    quantize: tuple[str, ...] | None = None
    #: a name that stands for several components in the configuration, such as ``dit`` for two experts
    group: str | None = None
    #: regular expressions of what may stand before all its names in a file that holds other components too
    prefixes: tuple[str, ...] = ()
    #: names of networks whose tensors are alike, its own among them: files and folders (``*/``) of any name are this
    #: one's when their name claims it, in any usual spelling (``named_expert``)
    experts: tuple[str, ...] = ()


@frozen(kw_only=True)
class TaskSpec:
    """What a task takes beside the prompt: names of the configuration's ``inputs``."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    #: the input video whose sound the result carries on
    audio: str | None = None

    @property
    def takes(self) -> frozenset[str]:
        return self.required | self.optional


@frozen(kw_only=True)
class RepositoryFiles:
    """Files of a hub repository that make one component, or go with one (``tokenizer``, ``config``)."""

    component: str
    #: globs of paths in the repository: all that match; or, if ``single``, the one file that the first of them with any
    #: matches
    files: tuple[str, ...]
    single: bool = False
    #: ``original``, ``fp8``, ``int8``, ...; None when it goes with every precision
    precision: str | None = None
    #: the sub-folder of the model's folder that they go into; None: where they are in the repository
    folder: str | None = None
    #: fetched only when it is asked for
    optional: bool = False


@frozen(kw_only=True)
class Repository:
    """A model, or a part of one, that can be downloaded: which files of a hub repository are what.

    A repository that holds several models is several of these.
    """

    #: what it is asked for by, such as ``acme-t2v-2b``
    name: str = field(validator=v.matches_re(r"[a-z0-9][a-z0-9._-]*"))
    #: ``owner/name`` on the hub
    repo: str = field(validator=v.matches_re(r"[\w.-]+/[\w.-]+"))
    summary: str
    kind: str = field(validator=v.in_(("official", "single-file", "structured", "lora", "part")))
    tasks: tuple[str, ...]
    files: tuple[RepositoryFiles, ...]
    distilled: bool = False
    #: names of other ones; what this one lacks comes from the first that has it
    companions: tuple[str, ...] = ()
