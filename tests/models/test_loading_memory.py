"""Loading a model never holds its weights twice: the most memory that the process has, over what it had before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

MEASURE = """
import json, sys, threading
import edgewise, torch, transformers
import transformers.models.llama.modeling_llama
from edgewise.models import load_model

load_model("tiny-ioi").fingerprint()  # what is imported by then is no weight

def resident():
    with open("/proc/self/statm") as file:
        return 4096 * int(file.read().split()[1])

before, most, done = resident(), [0], threading.Event()

def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], resident())

watching = threading.Thread(target=watch, daemon=True)
watching.start()
model = load_model(sys.argv[1], dtype=sys.argv[2])
model.fingerprint()  # reads every number
done.set()
watching.join()
weights = sum(one.numel() * one.element_size() for one in model.source.parameters())
print(json.dumps([max(most[0], resident()) - before, weights]))
"""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same Llama of half a billion numbers, in two dtypes, in several files each."""
    config = transformers.LlamaConfig(
        **dict(num_hidden_layers=12, hidden_size=1536, intermediate_size=6144, num_attention_heads=12),
        **dict(num_key_value_heads=4, vocab_size=32000, max_position_embeddings=512, bos_token_id=0, eos_token_id=0),
    )
    folder = tmp_path_factory.mktemp("middle-sized")
    with torch.device("cpu"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    for name, dtype in DTYPES.items():
        model.to(dtype).save_pretrained(folder / name, max_shard_size="200MB")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux' /proc")
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("asked", DTYPES)
def test_the_most_memory_is_little_more_than_the_weights(folders, stored, asked):
    command = [sys.executable, "-c", MEASURE, str(folders / stored), asked]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    most, weights = json.loads(found.stdout)
    assert most <= 1.15 * weights, f"{most / weights:.2f} times {weights / 1e9:.2f} GB"
