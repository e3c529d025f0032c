"""The form of a new run: fields made from schemas/, their texts read and checked, and the YAML that they amount to.

A field's value travels as the text that a person would write after the colon, so that the form and the YAML cannot mean
different things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml

from snaketune.config import presets, schema
from snaketune.config.docs import describe_key, inline_yaml, to_commented_yaml
from snaketune.config.schema_nodes import SchemaNode, root
from snaketune.errors import ConfigError
from snaketune.files import write_text
from snaketune.ui.project import CONFIGURATION, Project, check_run_name

Values = dict[str, str]  # what stands in the fields, by the key's path, such as train.rank
LISTED = ("array", "object")


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the configuration as a field.

    kind: choice, switch, number, text (as it is), or yaml (a list or a mapping); section: the heading it stands under.
    """

    path: str
    section: str
    kind: str
    help: str
    unit: str
    allowed: str
    default: str
    choices: list[str]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A heading of the form."""

    name: str
    help: str


class FormDescription(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page needs to draw the form."""

    sections: list[Section]
    fields: list[Field]
    presets: dict[str, str]


def describe() -> FormDescription:
    """The form, in the order of the schema."""
    nodes = leaves()
    top = root().properties
    sections = [Section(name="run", help="")] + [
        Section(name=name, help=node.description) for name, node in top.items() if node.properties
    ]
    fields = [_field(path, node) for path, node in nodes.items()]
    heads = {name: _head(presets.PRESETS / f"{name}.yaml") for name in presets.names()}
    return FormDescription(sections=sections, fields=fields, presets=heads)


def leaves() -> dict[str, SchemaNode]:
    """The keys that hold a value and no further keys, by their path."""
    found: dict[str, SchemaNode] = {}

    def add(node: SchemaNode, above: str) -> None:
        for key, below in node.properties.items():
            path = f"{above}{key}"
            if below.properties and "object" in below.types:
                add(below, f"{path}.")
            else:
                found[path] = below

    add(root(), "")
    return found


def _field(path: str, node: SchemaNode) -> Field:
    top = path.partition(".")[0]
    choices = [_plain(one) for one in node.enum or ()]
    return Field(
        path=path,
        section=top if root().properties[top].properties else "run",
        kind=_kind(node),
        help=describe_key(node),
        unit=node.unit,
        allowed=node.allowed(),
        default="" if node.default is msgspec.UNSET else _as_text(node, node.default),
        choices=choices,
    )


def _kind(node: SchemaNode) -> str:
    if node.enum is not None:
        return "choice"
    types = [name for one in (node, *node.any_of) for name in one.types]
    if types == ["boolean"]:
        return "switch"
    if set(types) & set(LISTED) or node.any_of:
        return "yaml"
    return "text" if "string" in types else "number"


def _is_text(node: SchemaNode) -> bool:
    return _kind(node) in ("text", "choice") and "string" in [*node.types, *(["string"] if node.enum else [])]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else inline_yaml(value)


def _as_text(node: SchemaNode, value: object) -> str:
    """A value as it stands in its field; an empty field of text is null, a list of mappings has an entry a line."""
    if isinstance(value, list) and value and node.items and node.items.properties:
        return "\n".join(f"- {inline_yaml(_without_defaults(entry, node.items))}" for entry in value)
    if value is None and _is_text(node):
        return ""
    return value if isinstance(value, str) and _is_text(node) else inline_yaml(value)


def _without_defaults(entry: Mapping[str, object], node: SchemaNode) -> dict[str, object]:
    return {key: value for key, value in entry.items() if value != node.properties[key].default}


def _head(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def texts(settings: Mapping[str, object]) -> Values:
    """The texts of all fields for complete settings."""
    return {path: _as_text(node, _at(settings, path)) for path, node in leaves().items()}


def _at(settings: Mapping[str, object], path: str) -> object:
    found: object = settings
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def settings_of(values: Values) -> dict[str, object]:
    """The complete settings that the fields amount to; ConfigError at the first field that is wrong."""
    nodes = leaves()
    given: dict[str, object] = {}
    for path, text in values.items():
        if path not in nodes:
            raise ConfigError("there is no such key", where=path)
        _put(given, path, _value(path, nodes[path], text))
    return schema.complete(given)


def _value(path: str, node: SchemaNode, text: str) -> object:
    if _is_text(node):
        nothing = "null" in node.types or (node.enum is not None and None in node.enum)
        return None if nothing and text in ("", "null") else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"this is not valid YAML: {problem}", where=path, fix=f"Allowed: {node.allowed()}") from None


def _put(given: dict[str, object], path: str, value: object) -> None:
    *above, last = path.split(".")
    place = given
    for key in above:
        below = place.setdefault(key, {})
        assert isinstance(below, dict)
        place = below
    place[last] = value


def starting_values(project: Project, kind: str, name: str) -> Values:
    """The fields as a preset, a configuration of this folder, or the schema's defaults fill them."""
    if kind == "preset":
        if name not in presets.names():
            raise ConfigError(f'there is no preset "{name[:80]}"{schema.did_you_mean(name, presets.names())}')
        given = schema.read(presets.PRESETS / f"{name}.yaml")
    elif kind == "configuration":
        given = schema.read(project.configuration(name))
    else:
        given = {}
    return texts(schema.complete({"run": "mine"} | given))


def to_yaml(settings: Mapping[str, object]) -> str:
    """The commented YAML of complete settings."""
    return to_commented_yaml(settings)


def changed_keys(settings: Mapping[str, object]) -> str:
    """Only what differs from the defaults, as YAML: the shortest configuration that means the same."""
    values, defaults = texts(settings), {path: _field(path, node).default for path, node in leaves().items()}
    short: dict[str, object] = {}
    for path, text in values.items():
        if path == "run" or text != defaults[path]:
            _put(short, path, _value(path, leaves()[path], text))
    return yaml.safe_dump(short, allow_unicode=True, sort_keys=False, width=100)


def save(project: Project, settings: Mapping[str, object], *, overwrite: bool) -> str:
    """Write `<run>.yaml`, complete and commented; returns its name. ConfigError where it exists and may not go."""
    run = str(settings["run"])
    check_run_name(run)
    name = f"{re.sub(r'[.]ya?ml$', '', run)}.yaml"
    target = project.path(name)
    if not CONFIGURATION.fullmatch(name) or name == "config.yaml":
        raise ConfigError(f"{name} is the demo's own file", where="run", fix="Choose another name for the run")
    if target.exists() and not overwrite:
        raise ConfigError(
            f"{name} exists", where="run", why="Comments of your own in it would be lost", fix="Choose another name"
        )
    write_text(target, to_yaml(settings))
    return name


def source_line(source: Mapping[str, object]) -> str:
    """An entry of data.sources, as YAML on one line."""
    return f"- {inline_yaml(dict(source))}"
