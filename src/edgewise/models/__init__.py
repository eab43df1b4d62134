"""What is searched: `Decoder`, the one narrow waist, and what builds one."""

from edgewise.models.decoder import Decoder, DecoderConfig, DecoderLayer
from edgewise.models.guard import check
from edgewise.models.load import BUILT_IN, DTYPES, load_model

__all__ = ["BUILT_IN", "DTYPES", "Decoder", "DecoderConfig", "DecoderLayer", "check", "load_model"]
