"""The parts of a model as data: components, their files and layouts, tasks, and repositories for download."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen
from attrs import validators as v


@frozen(kw_only=True)
class KeyMap:
    """The tensor names of a component in another layout than the official one.

    A stored name that ``renames`` turns into ``attn.to_qkv.weight#q`` is one part of ``attn.to_qkv.weight``: the parts
    listed in ``joins`` are concatenated along the first axis.
    """

    #: name of the layout, for plans and messages
    name: str
    #: (regular expression, replacement), applied to a stored name in this order
    renames: tuple[tuple[str, str], ...] = ()
    #: regular expressions of stored names that are markers, not weights; these are ignored
    drops: tuple[str, ...] = ()
    #: part names behind ``#``, in the order of concatenation, such as ``("q", "k", "v")``
    joins: tuple[str, ...] = ()
    #: (regular expression, replacement) from official to stored names, for writing this layout; empty: read-only. A
    #: name with ``#`` is written once for each of ``joins``, with that part of its rows
    reverse: tuple[tuple[str, str], ...] = ()
    #: regular expressions of official names that are omitted when writing this layout
    omits: tuple[str, ...] = ()
    #: regular expressions of stored names that are written without axes of length one
    squeezes: tuple[str, ...] = ()
    #: builds the ``config.json`` of this layout from the official one and the shapes of the official tensors
    config: Callable[[Mapping[str, object], Mapping[str, tuple[int, ...]]], Mapping[str, object]] | None = (
        None
    )


def _asset_paths(value: Mapping[str, str | tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    return {name: (paths,) if isinstance(paths, str) else tuple(paths) for name, paths in value.items()}


@frozen(kw_only=True)
class ComponentSpec:
    """One part of a model and the location of its files."""

    #: ``dit``, ``text_encoder``, ``vae``, ...
    name: str
    #: one line for plans and listings
    summary: str
    #: file names or globs inside the model folder, tried in order; the index file of shards is followed
    files: tuple[str, ...]
    #: further globs, tried when ``files`` match no usable file; requires ``signature``
    fallback: tuple[str, ...] = ()
    #: official tensor names that only files of this component contain; empty: file names alone decide
    signature: tuple[str, ...] = ()
    #: further layouts besides the official one
    layouts: tuple[KeyMap, ...] = ()
    #: additional files that it needs: name -> possible paths inside the model folder or next to the weights
    assets: Mapping[str, tuple[str, ...]] = field(factory=dict, converter=_asset_paths)
    #: advice for a missing component, such as a download location
    hint: str = ""
    #: False if official files contain more tensors than the model uses
    whole: bool = True
    #: regular expressions of tensors that a file may contain and the model ignores
    spare: tuple[str, ...] = ()
    #: True for the network that determines the variant; with several candidates the user must select one
    main: bool = False
    #: regular expressions of the layers to quantize in an unquantized file; None: every 2-D weight of a numbered block
    #: except norms and embeddings
    quantize: tuple[str, ...] | None = None
    #: configuration name shared by several components, such as ``dit`` for two experts
    group: str | None = None
    #: regular expressions of the prefix of its names in a file that also contains other components
    prefixes: tuple[str, ...] = ()
    #: names of networks with identical tensor names and shapes, including its own: files and folders (``*/``) of any
    #: name belong to this one if their name claims it, in any usual spelling (``named_expert``)
    experts: tuple[str, ...] = ()


@frozen(kw_only=True)
class TaskSpec:
    """Inputs of a task besides the prompt, by their names in the configuration's ``inputs``."""

    #: inputs without which the task cannot run
    required: frozenset[str] = frozenset()
    #: inputs that may be omitted
    optional: frozenset[str] = frozenset()
    #: the input video whose audio track is copied to the result; None: no audio
    audio: str | None = None

    @property
    def takes(self) -> frozenset[str]:
        """Return the names of all inputs, required and optional."""
        return self.required | self.optional


@frozen(kw_only=True)
class RepositoryFiles:
    """Files of a hub repository that belong to one component, or that accompany it (``tokenizer``, ``config``)."""

    #: name of the component, such as ``dit``; or ``tokenizer``, ``config``
    component: str
    #: globs of paths in the repository: every match, or with ``single`` one file
    files: tuple[str, ...]
    #: download one file only: the match of the first glob that has one
    single: bool = False
    #: ``original``, ``fp8``, ``int8``, ...; None: the same files for every precision
    precision: str | None = None
    #: target subfolder of the model folder; None: the path in the repository
    folder: str | None = None
    #: downloaded on request only
    optional: bool = False


@frozen(kw_only=True)
class Repository:
    """A model, or a part of one, that can be downloaded: the roles of the files in a hub repository.

    A repository with several models is described by several of these.
    """

    #: name on the command line, such as ``acme-t2v-2b``
    name: str = field(validator=v.matches_re(r"[a-z0-9][a-z0-9._-]*"))
    #: ``owner/name`` on the hub
    repo: str = field(validator=v.matches_re(r"[\w.-]+/[\w.-]+"))
    #: one line for listings
    summary: str
    #: ``official``, ``single-file``, ``structured``, ``lora`` or ``part``
    kind: str = field(validator=v.in_(("official", "single-file", "structured", "lora", "part")))
    #: tasks that the model runs, such as ``t2v``
    tasks: tuple[str, ...]
    files: tuple[RepositoryFiles, ...]
    #: whether the network is a step-distilled one
    distilled: bool = False
    #: names of other repositories; files missing from this one come from the first that has them
    companions: tuple[str, ...] = ()
