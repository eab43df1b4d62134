"""Small transformers whose weights are written down here, so that the true circuit is known.

Two are the programs of the ACDC paper that DeepMind's tracr compiles (list reversal and the fraction of x), one is its
OR gate. The two `tracr_*` functions that rebuild compiled weights compute what tracr's own matrices compute, on every
input; `tracr_xproportion` gives the same answers by a mechanism that does not rely on position 0 being empty.

How to read the code: a *direction* is one named coordinate of the residual stream, a *channel* one coordinate of a
head's query, key and value. Each weight that is set says "read this direction into that channel" or the other way
round; every weight not mentioned is zero.

All attention here looks both ways (tracr's models do), and scores are divided by sqrt(d_head). Softmax picks out a set
of keys only approximately; with a lead of `LEAD` in the undivided score a key outside the set gets at most
exp(-100 / sqrt(12)) = 3e-13 of the weight of one inside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgewise.models.plain_config import PlainTransformerConfig
from edgewise.models.plain_transformer import PlainMLP, PlainTransformer

TRACR_REVERSE_TOKENS = ("1", "2", "3", "BOS", "pad")
TRACR_XPROPORTION_TOKENS = ("BOS", "pad", "w", "x", "y", "z")
OR_GATE_TOKENS = ("go",)

REVERSE_LETTERS = ("1", "2", "3")
XPROPORTION_LETTERS = ("w", "x", "y", "z")

# Positions: BOS and up to five letters.
N_CONTEXT = 6
MAX_LETTERS = N_CONTEXT - 1

# Attention: the score of a selected key, and of the BOS that a query falls back on when it selects nothing.
LEAD = 100.0
FALLBACK = LEAD / 2

# The one head of a single-head layer.
HEAD = 0


def _directions(*names: str) -> dict[str, int]:
    """Residual-stream directions by name, in the order given."""
    return {name: index for index, name in enumerate(names)}


def _mlp(model: PlainTransformer, layer: int) -> PlainMLP:
    mlp = model.blocks[layer].mlp
    assert mlp is not None, "every model here has MLPs"
    return mlp


def _positions(model: PlainTransformer) -> Tensor:
    assert model.pos_embed is not None, "every model here has learned positions"
    return model.pos_embed.W_pos


def tracr_reverse(dtype: torch.dtype = torch.float32) -> PlainTransformer:
    """Reverses a list: `BOS 1 2 3` -> outputs (one-hot over 1, 2, 3) that say 3 2 1 at positions 1, 2, 3.

    Letter number i (from 0) of a list of L letters has to become letter number L - 1 - i, so the model finds L
    (a0.h0 and m0), then L - i (m1), then L - 1 - i (m2), and fetches the letter that stands there (a3.h0). a1.h0,
    a2.h0 and m3 do nothing. Tokens are `TRACR_REVERSE_TOKENS`; logits [batch, pos, 3].

    For `BOS` and 1 to 5 letters the outputs are exact to 1e-5. The BOS position has no letter to give and outputs 0.
    """
    config = PlainTransformerConfig(
        n_layers=4,
        n_heads=1,
        d_model=41,
        d_head=12,
        d_mlp=30,
        d_vocab=len(TRACR_REVERSE_TOKENS),
        d_vocab_out=len(REVERSE_LETTERS),
        n_context=N_CONTEXT,
        activation="relu",
        causal=False,
        attention_scale=True,
    )
    model = PlainTransformer(config).to(dtype)
    lengths = range(MAX_LETTERS + 1)
    indices = range(MAX_LETTERS)
    # What length - index can come to, over all pairs.
    differences = range(-MAX_LETTERS + 1, MAX_LETTERS + 1)

    d = _directions(
        # The constant that stands in for biases, in every token's embedding, pad included: where the token embedding
        # is taken away, the constant goes with it.
        "one",
        # Which token this is.
        *(f"token:{token}" for token in TRACR_REVERSE_TOKENS),
        # Which letter of the list this is, from 0. The position of BOS has none.
        *(f"index:{index}" for index in indices),
        # 1 / (1 + number of letters), a number: what uniform attention gives the BOS.
        "bos_share",
        # The number of letters.
        *(f"length:{length}" for length in lengths),
        # length - index.
        *(f"length-index:{difference}" for difference in differences),
        # length - index - 1: where the letter to output stands.
        *(f"source:{difference - 1}" for difference in differences),
        # The answer.
        *(f"output:{letter}" for letter in REVERSE_LETTERS),
    )

    _embed_with_one(model, d, TRACR_REVERSE_TOKENS)
    for index in indices:
        _positions(model)[index + 1, d[f"index:{index}"]] = 1

    # a0.h0 counts: a letter attends evenly to all letters and to the BOS, so the BOS's share of its attention, which is
    # what the value carries, is 1 / (1 + number of letters). BOS (and a pad) attends to the BOS alone.
    attn = model.blocks[0].attn
    bos_channel = len(REVERSE_LETTERS)
    attn.W_Q[HEAD, d["one"], bos_channel] = LEAD
    attn.W_K[HEAD, d["token:BOS"], bos_channel] = 1
    for channel, key_letter in enumerate(REVERSE_LETTERS):
        for query_letter in REVERSE_LETTERS:
            attn.W_Q[HEAD, d[f"token:{query_letter}"], channel] = LEAD
        attn.W_K[HEAD, d[f"token:{key_letter}"], channel] = 1
    attn.W_V[HEAD, d["token:BOS"], 0] = 1
    attn.W_O[HEAD, 0, d["bos_share"]] = 1

    # m0 turns the share into one length direction. It says "length 5" to begin with; each time the share exceeds the
    # halfway point between what `more` and `more - 1` letters give, a step moves that 1 from `more` to `more - 1`.
    # A step is the difference of two ReLUs, a ramp that rises from 0 to 1 just below the halfway point.
    mlp = _mlp(model, 0)
    steepness = 100.0
    unit = 0
    for more in reversed(lengths[1:]):
        fewer = more - 1
        halfway = (1 / (1 + more) + 1 / (1 + fewer)) / 2
        for start, sign in ((steepness * halfway - 1, 1.0), (steepness * halfway, -1.0)):
            mlp.W_in[d["bos_share"], unit] = steepness
            mlp.W_in[d["one"], unit] = -start
            mlp.W_out[unit, d[f"length:{fewer}"]] = sign
            mlp.W_out[unit, d[f"length:{more}"]] = -sign
            unit += 1
    mlp.W_in[d["one"], unit] = 1
    mlp.W_out[unit, d[f"length:{MAX_LETTERS}"]] = 1
    unit += 1
    # At the BOS, which sees only itself, this would come to a share of 1 and "length 0": take both back, so that the
    # BOS has no length and asks for nothing later on.
    mlp.W_in[d["token:BOS"], unit] = 1
    mlp.W_out[unit, d["length:0"]] = -1
    mlp.W_out[unit, d["bos_share"]] = -1

    # m1 subtracts: one unit for each pair of length and index, on when both hold.
    mlp = _mlp(model, 1)
    unit = 0
    for length in lengths:
        for index in indices:
            mlp.W_in[d[f"length:{length}"], unit] = 1
            mlp.W_in[d[f"index:{index}"], unit] = 1
            mlp.W_in[d["one"], unit] = -1
            mlp.W_out[unit, d[f"length-index:{length - index}"]] = 1
            unit += 1

    # m2 subtracts 1.
    mlp = _mlp(model, 2)
    for unit, difference in enumerate(differences):
        mlp.W_in[d[f"length-index:{difference}"], unit] = 1
        mlp.W_out[unit, d[f"source:{difference - 1}"]] = 1

    # a3.h0 fetches: attend to the letter whose index is `source`, and copy it to the output. A query without a source
    # in the list falls back on the BOS, which copies nothing.
    attn = model.blocks[3].attn
    for channel, index in enumerate(indices):
        attn.W_Q[HEAD, d[f"source:{index}"], channel] = LEAD
        attn.W_K[HEAD, d[f"index:{index}"], channel] = 1
    fallback_channel = len(indices)
    attn.W_Q[HEAD, d["one"], fallback_channel] = FALLBACK
    attn.W_K[HEAD, d["token:BOS"], fallback_channel] = 1
    for channel, letter in enumerate(REVERSE_LETTERS):
        attn.W_V[HEAD, d[f"token:{letter}"], channel] = 1
        attn.W_O[HEAD, channel, d[f"output:{letter}"]] = 1
        model.unembed.W_U[d[f"output:{letter}"], channel] = 1

    return model


def tracr_xproportion_compiled(dtype: torch.dtype = torch.float32) -> PlainTransformer:
    """The fraction of x among the letters so far, by the mechanism that tracr compiles.

    Output 0 at letter number i is the fraction of x among letters 1 to i; outputs 1 to 3 are 1 at positions 1, 2 and 3,
    because the vocabulary of four letters has four outputs and the program uses one. m0 marks the x's, a1.h0 averages
    the marks over the positions so far. a0.h0 and m1 do nothing. Tokens are `TRACR_XPROPORTION_TOKENS`; logits
    [batch, pos, 4].

    Position 0 has no direction of its own and so is never selected: BOS stays out of the average because it stands
    there, not because of what it is.
    """
    config = PlainTransformerConfig(
        n_layers=2,
        n_heads=1,
        d_model=14,
        d_head=7,
        d_mlp=1,
        d_vocab=len(TRACR_XPROPORTION_TOKENS),
        d_vocab_out=len(XPROPORTION_LETTERS),
        n_context=N_CONTEXT,
        activation="relu",
        causal=False,
        attention_scale=True,
    )
    model = PlainTransformer(config).to(dtype)
    positions = range(1, N_CONTEXT)
    d = _directions(
        # In every token's embedding, pad included.
        "one",
        # Which token this is.
        *(f"token:{token}" for token in TRACR_XPROPORTION_TOKENS),
        # Where it stands; position 0 has no direction.
        *(f"position:{position}" for position in positions),
        # 1 at an x.
        "is_x",
        # The answer.
        "fraction",
    )
    _embed_with_one(model, d, TRACR_XPROPORTION_TOKENS)
    for position in positions:
        _positions(model)[position, d[f"position:{position}"]] = 1

    _mark_x_and_read_out(model, d)

    # a1.h0 attends evenly to positions 1 to its own, and, from position 0, to a BOS.
    attn = model.blocks[1].attn
    for channel, key_position in enumerate(positions):
        for query_position in positions:
            if query_position >= key_position:
                attn.W_Q[HEAD, d[f"position:{query_position}"], channel] = LEAD
        attn.W_K[HEAD, d[f"position:{key_position}"], channel] = 1
    fallback_channel = len(positions)
    attn.W_Q[HEAD, d["one"], fallback_channel] = FALLBACK
    attn.W_K[HEAD, d["token:BOS"], fallback_channel] = 1
    return model


def tracr_xproportion(dtype: torch.dtype = torch.float32) -> PlainTransformer:
    """The fraction of x among the letters so far, counting letters because they are letters.

    On inputs of `BOS`, 1 to 4 letters and any number of pads after them, the outputs at BOS and at the letters are
    those of `tracr_xproportion_compiled`, to 1e-6. What differs is why BOS and pads are left out: every position, 0
    included, has its own direction, a query selects all positions up to its own, and the key's token says whether a
    letter stands there. Query and key therefore need both position and token at every letter. Tokens are
    `TRACR_XPROPORTION_TOKENS`; logits [batch, pos, 4].

    The circuit: m0 reads the token and marks the x's; a1.h0 reads token and position in query and key, m0 in its value,
    and writes the fraction. a0.h0 and m1 do nothing.

    Under resample ablation the token in the query cannot show, because what it brings is the same in every prompt. The
    token in the key shows only where a prompt is paired with a shorter one, and there only at the positions past that
    one's end: with strings of 1 to 4 letters its effect on the mean squared error is 2e-4 to 7e-3, where other edges
    have 2e-2 and more, so the threshold has to be 1e-4 or less to find it every time.
    """
    positions = range(N_CONTEXT)
    d = _directions(
        # In every token's embedding.
        "one",
        # Which token this is.
        *(f"token:{token}" for token in TRACR_XPROPORTION_TOKENS),
        # Where it stands, position 0 included.
        *(f"position:{position}" for position in positions),
        # 1 at an x.
        "is_x",
        # The answer.
        "fraction",
    )
    config = PlainTransformerConfig(
        n_layers=2,
        n_heads=1,
        d_model=len(d),
        d_head=len(positions) + 1,
        d_mlp=1,
        d_vocab=len(TRACR_XPROPORTION_TOKENS),
        d_vocab_out=len(XPROPORTION_LETTERS),
        n_context=N_CONTEXT,
        activation="relu",
        causal=False,
        attention_scale=True,
    )
    model = PlainTransformer(config).to(dtype)
    _embed_with_one(model, d, TRACR_XPROPORTION_TOKENS)
    for position in positions:
        _positions(model)[position, d[f"position:{position}"]] = 1

    _mark_x_and_read_out(model, d)

    # a1.h0: a key scores 2 LEAD for standing at or before the query, and LEAD for being a letter. So a letter's query
    # sees letters up to itself (3), before BOS (2), later letters (1) and pads (0), each a LEAD ahead of the next. The
    # two strengths differ for the sake of the query at BOS, which sees no letter at or before it: it must prefer the
    # BOS, whose value is 0, to the letters that follow.
    attn = model.blocks[1].attn
    for channel, key_position in enumerate(positions):
        for query_position in positions:
            if query_position >= key_position:
                attn.W_Q[HEAD, d[f"position:{query_position}"], channel] = 2 * LEAD
        attn.W_K[HEAD, d[f"position:{key_position}"], channel] = 1
    letter_channel = len(positions)
    attn.W_Q[HEAD, d["one"], letter_channel] = LEAD
    for letter in XPROPORTION_LETTERS:
        attn.W_K[HEAD, d[f"token:{letter}"], letter_channel] = 1
    return model


def _embed_with_one(model: PlainTransformer, d: dict[str, int], tokens: tuple[str, ...]) -> None:
    """A direction for each token, and `one` in all of them."""
    for token_id, token in enumerate(tokens):
        model.embed.W_E[token_id, d[f"token:{token}"]] = 1
        model.embed.W_E[token_id, d["one"]] = 1


def _mark_x_and_read_out(model: PlainTransformer, d: dict[str, int]) -> None:
    """What both xproportion models share: m0, the value and output of a1.h0, the unembedding."""
    mlp = _mlp(model, 0)
    mlp.W_in[d["token:x"], 0] = 1
    mlp.W_out[0, d["is_x"]] = 1

    attn = model.blocks[1].attn
    attn.W_V[HEAD, d["is_x"], 0] = 1
    attn.W_O[HEAD, 0, d["fraction"]] = 1

    for output, direction in enumerate(("fraction", "position:1", "position:2", "position:3")):
        model.unembed.W_U[d[direction], output] = 1


def or_gate(dtype: torch.dtype = torch.float64) -> PlainTransformer:
    """An OR of two heads: the output is 1 as long as either head, or both, writes its 1.

    Each of a0.h0 and a0.h1 adds its value bias, 1, to `sum`; m0 writes 1 - ReLU(1 - sum) to `output`: 0, 1, 1 for sums
    of 0, 1, 2. One token, one position; logits [batch, 1, 1]. The token's embedding is empty: all that happens starts
    from biases, and those belong to nodes (b_V to the head, b_in and b_out to the MLP), so removing both heads gives 0,
    and so does removing the MLP.
    """
    config = PlainTransformerConfig(
        n_layers=1,
        n_heads=2,
        d_model=2,
        d_head=1,
        d_mlp=1,
        d_vocab=len(OR_GATE_TOKENS),
        d_vocab_out=1,
        n_context=1,
        activation="relu",
        causal=False,
        attention_scale=True,
    )
    model = PlainTransformer(config).to(dtype)
    d = _directions(
        # How many of the two heads are at work.
        "sum",
        # The answer.
        "output",
    )
    attn = model.blocks[0].attn
    for head in range(config.n_heads):
        attn.b_V[head, 0] = 1
        attn.W_O[head, 0, d["sum"]] = 1
    mlp = _mlp(model, 0)
    mlp.b_in[0] = 1
    mlp.W_in[d["sum"], 0] = -1
    mlp.W_out[0, d["output"]] = -1
    mlp.b_out[d["output"]] = 1
    model.unembed.W_U[d["output"], 0] = 1
    return model


# Every model here, by the name that users give.
HAND_BUILT: dict[str, Callable[..., PlainTransformer]] = {
    "tracr-reverse": tracr_reverse,
    "tracr-xproportion": tracr_xproportion,
    "tracr-xproportion-compiled": tracr_xproportion_compiled,
    "or-gate": or_gate,
}
