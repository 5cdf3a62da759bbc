"""Descriptions of channels, a name or a name with its parameters, and the predefined channels.

awgn                                  a name
{rayleigh: {coherence: picture}}      a name and its parameters
"""

from __future__ import annotations

from collections.abc import Mapping

from channels.errors import ConfigError

READY: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "iid": ("iid_erasure", {}),
    "bursts": ("gilbert_elliott", {}),
    "awgn": ("coded", {"over": "awgn", "modulation": "qpsk", "code_rate": 0.5}),
    "rayleigh": (
        "coded",
        {"over": {"rayleigh": {"coherence": "packet"}}, "modulation": "qpsk", "code_rate": 0.5},
    ),
}
"""Predefined channels: name -> (registered channel, parameters)."""


def name_and_parameters(kind: str, spec: object) -> tuple[str, dict[str, object]]:
    """Return name and parameters of a description. Raises ConfigError for any other form.

    spec: a name, or a mapping of one name to its parameters. kind: what it describes, for errors.

    >>> name_and_parameters("channel", {"iid_erasure": {"loss": 0.1}})
    ('iid_erasure', {'loss': 0.1})
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, parameters = next(iter(spec.items()))
        if isinstance(name, str) and (parameters is None or isinstance(parameters, Mapping)):
            return name, {str(key): value for key, value in (parameters or {}).items()}
    raise ConfigError(
        f"a {kind} is a name or one name with its parameters, as {{name: {{key: value}}}}; "
        f"got {spec!r}"
    )
