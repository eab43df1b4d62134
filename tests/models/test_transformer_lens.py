"""Checkpoints in TransformerLens' format compute what that format means, and say what is wrong if anything is."""

import json
import math
import types

import huggingface_hub.constants
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edgewise import load_model, load_task
from edgewise.errors import EdgewiseError
from edgewise.models import check
from edgewise.models.plain_config import ACTIVATIONS

D_MODEL, HEADS, D_HEAD, D_MLP, VOCABULARY, OUTPUTS, CONTEXT = 12, 4, 6, 20, 17, 13, 9

BASE = {
    "n_layers": 2,
    "d_model": D_MODEL,
    "n_ctx": CONTEXT,
    "d_head": D_HEAD,
    "n_heads": HEADS,
    "d_mlp": D_MLP,
    "d_vocab": VOCABULARY,
    "act_fn": "gelu",
    "normalization_type": "LN",
}

OPTIONS = {
    "as-it-is": {},
    "attention-only": {"attn_only": True, "act_fn": None, "d_mlp": None},
    "LNPre": {"normalization_type": "LNPre"},
    "RMS": {"normalization_type": "RMS"},
    "RMSPre": {"normalization_type": "RMSPre"},
    "no-norm": {"normalization_type": None},
    "final-rms": {"final_rms": True},
    "final-rms-pre": {"final_rms": True, "normalization_type": "LNPre"},
    "epsilon": {"eps": 0.3},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "shortformer-attention-only": {"positional_embedding_type": "shortformer", "attn_only": True},
    "rotary": {"positional_embedding_type": "rotary"},
    "rotary-part": {"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_base": 100},
    "rotary-adjacent": {"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_adjacent_pairs": True},
    "bidirectional": {"attention_dir": "bidirectional"},
    "outputs": {"d_vocab_out": OUTPUTS},
    "scale": {"attn_scale": 1.7},
    "no-scale": {"use_attn_scale": False},
    "scale-by-layer": {"scale_attn_by_inverse_layer_idx": True},
    "grouped": {"n_key_value_heads": 2},
    "gated": {"gated_mlp": True, "act_fn": "silu"},
    "parallel": {"parallel_attn_mlp": True},
    **{f"act-{name}": {"act_fn": name} for name in ACTIVATIONS},
    "solu_ln-without-weights": {"act_fn": "solu_ln", "normalization_type": "LNPre"},
}


def random_state(config, seed=0):
    """A random state dict with the tensors, and names, that TransformerLens gives this configuration."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.5

    def norm(prefix, width, kind):
        if kind in ("LN", "RMS"):
            state[f"{prefix}.w"] = 1 + tensor(width)
        if kind == "LN":
            state[f"{prefix}.b"] = tensor(width)

    kind, grouped = config["normalization_type"], config.get("n_key_value_heads")
    state = {"embed.W_E": tensor(VOCABULARY, D_MODEL)}
    if config.get("positional_embedding_type", "standard") != "rotary":
        state["pos_embed.W_pos"] = tensor(CONTEXT, D_MODEL)
    for layer in range(config["n_layers"]):
        at = f"blocks.{layer}"
        norm(f"{at}.ln1", D_MODEL, kind)
        for letter in "QKV":
            shared = grouped and letter != "Q"
            mark, heads = ("_", grouped) if shared else ("", HEADS)
            state[f"{at}.attn.{mark}W_{letter}"] = tensor(heads, D_MODEL, D_HEAD)
            state[f"{at}.attn.{mark}b_{letter}"] = tensor(heads, D_HEAD)
        state[f"{at}.attn.W_O"], state[f"{at}.attn.b_O"] = tensor(HEADS, D_HEAD, D_MODEL), tensor(D_MODEL)
        state[f"{at}.attn.mask"] = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()
        state[f"{at}.attn.IGNORE"] = torch.tensor(-torch.inf)
        if config.get("attn_only"):
            continue
        norm(f"{at}.ln2", D_MODEL, kind)
        state[f"{at}.mlp.W_in"], state[f"{at}.mlp.b_in"] = tensor(D_MODEL, D_MLP), tensor(D_MLP)
        state[f"{at}.mlp.W_out"], state[f"{at}.mlp.b_out"] = tensor(D_MLP, D_MODEL), tensor(D_MODEL)
        if config.get("gated_mlp"):
            state[f"{at}.mlp.W_gate"] = tensor(D_MODEL, D_MLP)
        if config["act_fn"] == "solu_ln":
            norm(f"{at}.mlp.ln", D_MLP, kind)
    norm("ln_final", D_MODEL, ("RMS" if kind == "LN" else "RMSPre") if config.get("final_rms") else kind)
    outputs = config.get("d_vocab_out", VOCABULARY)
    state["unembed.W_U"], state["unembed.b_U"] = tensor(D_MODEL, outputs), tensor(outputs)
    return state


def by_hand(config, state, tokens):
    """Logits `[pos, outputs]` of one prompt: the format's meaning, written out for one head and position at a time."""
    kind, positions = config["normalization_type"], config.get("positional_embedding_type", "standard")

    def norm(x, prefix, kind):
        if kind is None:
            return x
        if kind.startswith("LN"):
            x = x - x.mean()
        x = x / math.sqrt((x @ x).item() / len(x) + config.get("eps", 1e-5))
        x = x * state[f"{prefix}.w"] if f"{prefix}.w" in state else x
        return x + state[f"{prefix}.b"] if f"{prefix}.b" in state else x

    def activate(x):
        name = config["act_fn"]
        if name.startswith("solu"):
            return x * torch.exp(x) / torch.exp(x).sum()
        if name == "relu":
            return x * (x > 0)
        if name == "silu":
            return x / (1 + torch.exp(-x))
        if name == "gelu":
            return x * (1 + torch.erf(x / math.sqrt(2))) / 2
        if name == "xielu":
            small = torch.minimum(x, torch.tensor(-1e-6))
            return torch.where(x > 0, 0.8 * x**2 + 0.5 * x, (torch.exp(small) - 1 - x) * 0.8 + 0.5 * x)
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    def turn(x, position):
        if positions != "rotary":
            return x
        width = config.get("rotary_dim", D_HEAD)
        pairs = [(2 * i, 2 * i + 1) if config.get("rotary_adjacent_pairs") else (i, i + width // 2)
                 for i in range(width // 2)]  # fmt: skip
        turned = x.clone()
        for i, (a, b) in enumerate(pairs):
            angle = position * config.get("rotary_base", 10_000) ** (-2 * i / width)
            turned[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
            turned[b] = x[b] * math.cos(angle) + x[a] * math.sin(angle)
        return turned

    here = range(len(tokens))
    learned = [state["pos_embed.W_pos"][p] if "pos_embed.W_pos" in state else 0.0 for p in here]
    stream = [state["embed.W_E"][token] + (learned[p] if positions == "standard" else 0.0)
              for p, token in enumerate(tokens)]  # fmt: skip
    for layer in range(config["n_layers"]):
        at = f"blocks.{layer}"
        weights = {key.split(".attn.")[1].lstrip("_"): value for key, value in state.items() if f"{at}.attn." in key}
        normed = [norm(stream[p], f"{at}.ln1", kind) for p in here]
        placed = [normed[p] + learned[p] if positions == "shortformer" else normed[p] for p in here]
        after = [stream[p] + weights["b_O"] for p in here]
        for head in range(HEADS):
            shared = head // (HEADS // len(weights["W_K"]))
            q = [turn(placed[p] @ weights["W_Q"][head] + weights["b_Q"][head], p) for p in here]
            k = [turn(placed[p] @ weights["W_K"][shared] + weights["b_K"][shared], p) for p in here]
            v = [normed[p] @ weights["W_V"][shared] + weights["b_V"][shared] for p in here]
            divisor = config.get("attn_scale", math.sqrt(D_HEAD)) if config.get("use_attn_scale", True) else 1.0
            divisor *= layer + 1 if config.get("scale_attn_by_inverse_layer_idx") else 1
            for p in here:
                seen = here if config.get("attention_dir") == "bidirectional" else range(p + 1)
                likes = [math.exp((q[p] @ k[other]).item() / divisor) for other in seen]
                z = sum(like / sum(likes) * v[other] for like, other in zip(likes, seen, strict=True))
                after[p] = after[p] + z @ weights["W_O"][head]
        if not config.get("attn_only"):
            mlp = {key.split(".mlp.")[1]: value for key, value in state.items() if f"{at}.mlp." in key}
            for p in here:
                x = norm(stream[p] if config.get("parallel_attn_mlp") else after[p], f"{at}.ln2", kind)
                if config.get("gated_mlp"):
                    hidden = activate(x @ mlp["W_gate"]) * (x @ mlp["W_in"]) + mlp["b_in"]
                else:
                    hidden = activate(x @ mlp["W_in"] + mlp["b_in"])
                if config["act_fn"] == "solu_ln":
                    hidden = norm(hidden, f"{at}.mlp.ln", "LN")
                after[p] = after[p] + hidden @ mlp["W_out"] + mlp["b_out"]
        stream = after
    last = ("RMS" if kind == "LN" else "RMSPre") if config.get("final_rms") else kind
    return torch.stack([norm(x, "ln_final", last) @ state["unembed.W_U"] + state["unembed.b_U"] for x in stream])


def write(folder, config, state, file="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if file.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in state.items()}, folder / file)
    else:
        torch.save(state, folder / file)
    return folder


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_are_those_worked_out_by_hand(option, tmp_path):
    config = BASE | OPTIONS[option]
    state = random_state(config)
    model = load_model(write(tmp_path / "m", config, state), dtype="float64")
    tokens = torch.randint(VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    wanted = torch.stack([by_hand(config, state, row.tolist()) for row in tokens])
    everything = torch.ones_like(tokens, dtype=torch.bool)
    found = model.run_source(tokens, everything, torch.arange(7)[None])
    assert found.shape == wanted.shape == (2, 7, config.get("d_vocab_out", VOCABULARY))
    assert wanted.std() > 0.1
    assert (found - wanted).abs().max() < 1e-5
    # And edgewise reads the model as it is.
    assert check(model, tokens, everything) < 1e-12


def test_every_option_changes_the_logits(tmp_path):
    """Otherwise the test above could pass without a loader that looks at it."""
    tokens = torch.arange(7)[None]
    everything = torch.ones_like(tokens, dtype=torch.bool)

    def logits(changes):
        config = BASE | changes
        state = random_state(config)
        return load_model(write(tmp_path / "m", config, state), dtype="float64").run_source(tokens, everything, tokens)

    plain = {name: logits(changes) for name, changes in OPTIONS.items() if "d_vocab_out" not in changes}
    names = [name for name in plain if name not in ("act-gelu", "act-gelu_pytorch_tanh", "act-gelu_fast")]
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            assert (plain[name] - plain[other]).abs().max() > 1e-6, (name, other)


@pytest.mark.parametrize("file", ["model.safetensors", "model_final.pth", "anything.pt"])
def test_weights_may_be_safetensors_or_a_torch_file(file, tmp_path):
    state = random_state(BASE)
    model = load_model(write(tmp_path / "m", BASE, state, file), dtype="float64")
    assert torch.equal(model.source.state_dict()["unembed.W_U"], state["unembed.W_U"])
    assert model.config.architecture == "transformer-lens"
    assert (model.config.d_mlp, model.config.position_embedding) == (D_MLP, True)


def test_the_last_checkpoint_of_a_training_run_is_taken_and_a_choice_of_two_is_refused(tmp_path):
    state = random_state(BASE)
    folder = write(tmp_path / "m", BASE, state, "gelu_2l_final.pth")
    torch.save({key: value * 2 for key, value in state.items() if key != "x"}, folder / "gelu_2l_001000.pth")
    assert torch.equal(load_model(folder, dtype="float64").source.embed.W_E, state["embed.W_E"])
    (folder / "gelu_2l_final.pth").rename(folder / "gelu_2l_002000.pth")
    with pytest.raises(EdgewiseError, match=r"several files of weights \(gelu_2l_001000.pth, gelu_2l_002000.pth\)"):
        load_model(folder)


def test_older_field_names_are_read(tmp_path):
    config = {key: value for key, value in BASE.items() if key != "normalization_type"}
    config |= {"normalization": "LNPre", "shortformer_pos": True, "attn_only": True, "d_vocab": -1}
    state = random_state(config | {"normalization_type": "LNPre", "positional_embedding_type": "shortformer"})
    source = load_model(write(tmp_path / "m", config, state)).source.config
    assert (source.normalization, source.positions, source.d_mlp, source.d_vocab) == ("LNPre", "shortformer", 0, 17)


def test_an_activation_is_looked_at_in_a_model_that_has_none(tmp_path):
    config = BASE | {"attn_only": True, "act_fn": "zz"}
    with pytest.raises(EdgewiseError, match=r"unknown act_fn in the config\.json of model .*'zz'"):
        load_model(write(tmp_path / "m", config, random_state(config)))


def test_a_tensor_made_of_one_number_repeated_is_refused_before_memory_is_taken(tmp_path):
    folder = write(tmp_path / "m", BASE | {"d_vocab": 10**9}, random_state(BASE))
    (weights,) = (file for file in folder.iterdir() if file.name != "config.json")
    weights.unlink()
    torch.save(random_state(BASE) | {"embed.W_E": torch.zeros(1).expand(10**9, BASE["d_model"])}, folder / "model.pth")
    with pytest.raises(EdgewiseError, match="not a state dict of tensors by name"):
        load_model(folder)


def test_biases_that_are_not_there_are_zero(tmp_path):
    state = {key: value for key, value in random_state(BASE).items() if ".b_" not in key}
    source = load_model(write(tmp_path / "m", BASE, state)).source
    assert source.blocks[0].attn.b_Q.abs().max() == source.unembed.b_U.abs().max() == 0


def test_a_live_hooked_transformer_is_read_as_it_is():
    state = random_state(BASE)
    hooked = types.SimpleNamespace(cfg=types.SimpleNamespace(**BASE, model_name="mine"), state_dict=lambda: state)
    model = load_model(hooked)
    assert model.name == "mine"
    assert model.dtype == torch.float64
    assert model.source.embed.W_E.data_ptr() == state["embed.W_E"].data_ptr(), "referred to, not copied"


def change(key, value):
    return lambda config, state: config.__setitem__(key, value)


def reshape(key, *shape):
    return lambda config, state: state.__setitem__(key, torch.zeros(*shape))


BROKEN = {
    "shape": (
        reshape("blocks.1.attn.W_Q", 4, 12, 5),
        r"tensor 'blocks.1.attn.W_Q' has shape \[4, 12, 5\], config.json asks for \[4, 12, 6\]",
    ),
    "missing": (lambda _, state: state.pop("blocks.0.mlp.W_in"), "tensor 'blocks.0.mlp.W_in' is not in the checkpoint"),
    "extra": (reshape("blocks.0.attn.W_X", 1), "tensor 'blocks.0.attn.W_X' is nothing that config.json accounts for"),
    "layers": (change("n_layers", 3), "config.json has n_layers 3, the checkpoint 2"),
    "integers": (
        lambda _, state: state.__setitem__("unembed.b_U", torch.zeros(VOCABULARY, dtype=torch.long)),
        "tensor 'unembed.b_U' holds torch.int64, not floating-point numbers",
    ),
    "norms-folded": (change("normalization_type", "LNPre"), r"blocks.0.ln1.b' \(and 9 more\) is nothing that"),
    "activation": (change("act_fn", "geluu"), "unknown act_fn in the config.json of model .*; did you mean 'gelu'"),
    "norm": (change("normalization_type", "BN"), "unknown normalization_type"),
    "alibi": (change("positional_embedding_type", "alibi"), "unknown positional_embedding_type .* 'alibi'"),
    "direction": (change("attention_dir", "up"), "unknown attention_dir"),
    "local": (change("use_local_attn", True), "edgewise does not support use_local_attn True"),
    "soft-cap": (change("attn_scores_soft_cap", 50.0), "does not support attn_scores_soft_cap 50.0"),
    "no-size": (change("d_head", "six"), "d_head in its config.json is 'six'; it should be a whole number"),
    "negative": (change("n_ctx", -1), "n_ctx in its config.json is -1"),
    "absent": (lambda config, _: config.pop("n_ctx"), "n_ctx in its config.json is missing"),
    "odd-rotary": (
        lambda config, _: config.update(positional_embedding_type="rotary", rotary_dim=5),
        "rotary_dim is 5; it has to be even and at most d_head, 6",
    ),
    "uneven": (change("n_key_value_heads", 3), "4 heads cannot share 3 key/value heads evenly"),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused_with_the_reason(problem, tmp_path):
    config, state = dict(BASE), random_state(BASE)
    spoil, message = BROKEN[problem]
    spoil(config, state)
    with pytest.raises(EdgewiseError, match=message):
        load_model(write(tmp_path / "m", config, state))


def test_nothing_but_tensors_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise RuntimeError('ran')",))

    folder = write(tmp_path / "m", BASE, random_state(BASE))
    (folder / "model.safetensors").unlink()
    torch.save({"embed.W_E": Bomb()}, folder / "model.pth")
    with pytest.raises(EdgewiseError, match="holds more than tensors, and edgewise runs no code from a checkpoint"):
        load_model(folder)
    torch.save([1, 2], folder / "model.pth")
    with pytest.raises(EdgewiseError, match=r"model.pth is not a state dict of tensors"):
        load_model(folder)
    (folder / "model.pth").write_bytes(b"no checkpoint")
    with pytest.raises(EdgewiseError, match=r"the weights of model .* cannot be read"):
        load_model(folder)
    (folder / "model.pth").unlink()
    with pytest.raises(EdgewiseError, match=r"has no weights: no file that ends in \.safetensors, \.pth, \.pt"):
        load_model(folder)


@tiny.needs_shared
@pytest.mark.parametrize("name", ["tracr-reverse", "tracr-xproportion"])
def test_tracrs_own_weights_give_their_recorded_outputs(name):
    folder = tiny.SHARED / "models" / name
    model, recorded = load_model(folder), load_file(folder / "io.safetensors")
    tokens = recorded["tokens"]
    everything = torch.ones_like(tokens, dtype=torch.bool)
    found = model.run_source(tokens, everything, torch.arange(tokens.shape[1])[None])
    assert recorded["outputs"][:, 1:].abs().max() > 0.99
    assert (found - recorded["outputs"])[:, 1:].abs().max() < 1e-5
    assert check(model, tokens, everything) < 1e-5


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts repositories into a local hub cache, with the hub itself out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(repository):
        folder = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots").mkdir()
        return folder / "snapshots" / ("0" * 40)

    return put


@pytest.mark.parametrize("name", ["attn-only-4l", "NeelNanda/Attn_Only_4L512W_C4_Code"])
def test_a_checkpoint_on_the_hub_loads_by_its_id_and_by_its_short_name(name, hub):
    config = BASE | {"n_layers": 4, "attn_only": True, "tokenizer_name": "NeelNanda/gpt-neox-tokenizer-digits"}
    state = random_state(config)
    write(hub("NeelNanda/Attn_Only_4L512W_C4_Code"), config, state, "Attn_Only_4L512W_C4_Code_final.pth")
    model = load_model(name, dtype="float64")
    assert (model.name, model.config.n_layers, model.config.mlps) == (name, 4, False)
    assert torch.equal(model.source.embed.W_E, state["embed.W_E"])
    # Its tokenizer is not in the cache: only tasks made of text miss it, and they say why.
    assert model.tokenizer is None
    with pytest.raises(
        EdgewiseError, match=r"no tokenizer \(its config.json names 'NeelNanda/gpt-neox-tokenizer-digits'"
    ):
        load_task("ioi", model)
    assert load_task("induction", model, examples=2).name == "induction"


def test_a_checkpoint_that_is_not_in_the_cache_is_said_to_be_missing_with_its_hub_id(hub):
    with pytest.raises(
        EdgewiseError, match=r"'attn-only-4l' \(hub id NeelNanda/Attn_Only_4L512W_C4_Code\).*hub cannot"
    ):
        load_model("attn-only-4l")


def test_a_tokenizer_in_the_folder_is_the_models(tmp_path):
    folder = write(tmp_path / "m", BASE, random_state(BASE))
    words = Tokenizer(WordLevel({"<unk>": 0, "boy": 1, "girl": 2}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    assert load_model(folder).tokenizer.convert_tokens_to_ids("girl") == 2
