"""What is searched: `Decoder`, the one narrow waist, and what builds one."""

from edgewise.models.built_in import GETTABLE, got
from edgewise.models.control import permuted
from edgewise.models.decoder import Decoder, DecoderConfig
from edgewise.models.dictionary import Dictionary
from edgewise.models.dictionary_files import with_dictionary
from edgewise.models.feature_mlp import by_feature
from edgewise.models.get import get_model
from edgewise.models.guard import check
from edgewise.models.huggingface import register_family
from edgewise.models.load import BUILT_IN, DTYPES, load_model

__all__ = [
    "BUILT_IN",
    "DTYPES",
    "GETTABLE",
    "Decoder",
    "DecoderConfig",
    "Dictionary",
    "by_feature",
    "check",
    "get_model",
    "got",
    "load_model",
    "permuted",
    "register_family",
    "with_dictionary",
]
