"""Which encoder families there are, by the name in the manifest; knows nothing about weights."""

from collections.abc import Callable, Mapping
from typing import Final

from model.encoders.cnn import CNNEncoder
from model.encoders.gru import GRUEncoder
from model.encoders.lstm import LSTMEncoder
from model.encoders.mingru import MinGRUEncoder
from model.encoders.mlp import MLPEncoder
from model.encoders.session_encoder import EncoderConfig, SessionEncoder

FAMILIES: Final[Mapping[str, Callable[[EncoderConfig], SessionEncoder]]] = {
    "cnn": CNNEncoder,
    "gru": GRUEncoder,
    "lstm": LSTMEncoder,
    "mingru": MinGRUEncoder,
    "mlp": MLPEncoder,
}


def build_encoder(config: EncoderConfig) -> SessionEncoder:
    """Return a new encoder with random weights; raises ValueError for an unknown family."""
    if config.family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"unknown encoder family {config.family!r}, known: {known}")
    return FAMILIES[config.family](config)
