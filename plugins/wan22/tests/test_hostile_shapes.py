"""Tensors of any shape and a config.json with any content: a model refuses, and does not crash."""

import json
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightx2v_core.api import CheckpointError, CheckpointFacts, Header, Recognition
from lightx2v_core.checkpoint.layouts import recognize_layout
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.recognize import read_header
from lightx2v_core.testing.profiles import examples

NAMES = ("wan2.1", "wan2.2-a14b", "wan2.2-ti2v", "wan2.2-animate")
SHAPES = st.one_of(
    st.just(()), st.just((0,)), st.just((0, 0, 0, 0, 0)), st.just((1 << 48,)), st.just((1,) * 64),
    st.lists(st.sampled_from([0, 1, 2, 3, 16, 36, 48, 64, 1 << 48]), max_size=6).map(tuple),
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just(10**400),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each model with the facts of its own tiny checkpoint."""
    plugins = load_plugins()
    found = {}
    for item in plugins.provided("model"):
        if item.spec.name in NAMES:
            folder = tmp_path_factory.mktemp("tiny")
            item.spec.write_tiny(folder, 0)
            found[item.spec.name] = (item.spec, facts_of(item.spec, folder, Registry(plugins)))
    return found


def facts_of(spec, folder: Path, registry):
    headers = {}
    files = [file for file in folder.rglob("*") if file.suffix in (".pth", ".safetensors")]
    for part in spec.components:
        for file in sorted(files, key=lambda file: part.name not in str(file)):
            tensors = {}
            for other in files:
                if other.parent == file.parent and other.suffix == file.suffix == ".safetensors":
                    tensors |= read_header(registry, other).tensors
            header = Header(tensors=tensors) if tensors else read_header(registry, file)
            if (mapped := recognize_layout(part, header)) is not None:
                headers[part.name] = mapped.header
                break
    config = next(iter(sorted(folder.rglob("config.json"))), None)
    said = json.loads(config.read_text()) if config is not None else {}
    return CheckpointFacts(folder=folder, config=said, headers=headers, options=spec.config())


def test_what_is_changed_is_recognized_unchanged(models):
    for name, (spec, facts) in models.items():
        assert isinstance(spec.recognize(facts), Recognition), name


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape_and_any_configuration(models, data):
    spec, facts = models[data.draw(st.sampled_from(NAMES))]
    headers = dict(facts.headers)
    for _ in range(data.draw(st.integers(0, 3))):
        part = data.draw(st.sampled_from(sorted(headers)))
        telling = sorted(headers[part].tensors, key=lambda name: (len(name), name))[:60]
        name, shape = data.draw(st.sampled_from(telling)), data.draw(SHAPES)
        tensors = dict(headers[part].tensors)
        tensors[name] = attrs.evolve(tensors[name], shape=shape)
        if name not in spec.components[0].signature and data.draw(st.booleans()):
            del tensors[name]
        headers[part] = Header(tensors=tensors)
    config = dict(facts.config)
    for _ in range(data.draw(st.integers(0, 2))):
        config[data.draw(st.sampled_from(sorted({*config, "vace_layers", "attention_head_dim"})))] = (
            data.draw(VALUES)
        )
    if data.draw(st.booleans()):
        config = {}
    try:
        answer = spec.recognize(attrs.evolve(facts, headers=headers, config=config))
    except CheckpointError as exc:
        answer = str(exc)
    if isinstance(answer, str):
        assert "failed" not in answer
        assert "\n" not in answer
    else:
        assert all(side > 0 for part in answer.expected.values() for shape in part.values() for side in shape)
