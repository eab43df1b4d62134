"""A circuit on any text, and a circuit in place of a live model's forward pass.

    with circuit.applied(model, "mean", task=task) as live:
        live.generate(**inputs)

Inside the block, `forward` of the `transformers` model runs the circuit through the Decoder, over the whole text that
it is given, so that generation, pipelines and evaluation harnesses see the circuit's logits. No state is kept from one
step to the next: keys and values of a circuit are not the model's, so a cache is switched off, and refused where it is
asked for by name.

What an absent edge carries on text that no task has paired with anything is the question. A constant (`zero`, `mean`,
`mean-clean`, what `optimal` learned) goes everywhere. `resample` needs the corrupted prompt: the corrupted run reads
that, and where the text goes on beyond it, the text's own tokens.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.errors import EdgewiseError, unknown
from edgewise.graph import Circuit, Graph, NeuronCircuit
from edgewise.graph.by_node import complement as complement_of
from edgewise.models import Decoder, load_model
from edgewise.models.feature_mlp import taken_apart
from edgewise.models.forward import forward
from edgewise.models.guard import check, random_prompts
from edgewise.models.peft_adapter import is_peft
from edgewise.models.wrappers import is_bridge, unwrap
from edgewise.patching.ablation import ABLATIONS, Ablated, Ablation, ablated_run, constants_of
from edgewise.patching.constants import Constants
from edgewise.patching.experiment import ROW_BYTES, Experiment
from edgewise.patching.runner import fitted, runner_of
from edgewise.tasks import Task
from edgewise.tasks.tokens import encode

Corrupt = str | Sequence[int] | Sequence[Sequence[int]] | Tensor
"""A corrupted prompt as text or token ids, or one for each row of a batch."""

_OF_THE_TASK = ("noise", "mean-positional")
"""Ablations that say nothing about new text."""


class TextCircuit:
    """A circuit that runs on any text.

    Attributes:
        decoder: the model; for a circuit of neurons, one that tells them apart.
        circuit: what is run, over the model's own graph.
    """

    def __init__(
        self,
        circuit: Circuit,
        decoder: Decoder,
        ablation: str | Ablation | Constants | None = None,
        *,
        task: Task | None = None,
        corrupt: Corrupt | None = None,
        complement: bool = False,
    ) -> None:
        """As `applied`, on a Decoder."""
        if circuit.graph.spans:
            raise EdgewiseError(
                "the circuit tells positions apart, and new text has no such spans; apply one that does not"
            )
        if isinstance(circuit, NeuronCircuit):
            decoder = taken_apart(decoder, features=bool(circuit.graph.features))
        graph = fitted(decoder, circuit.graph)
        if graph is None:
            raise EdgewiseError(
                f"the circuit is over another graph: {circuit.graph.describe()}, where model {decoder.name!r} has "
                f"{decoder.graph(ports=circuit.graph.ports).describe()}"
            )
        if task is not None and task.n_tokens not in (None, decoder.config.n_tokens):
            raise EdgewiseError(
                f"task {task.name!r} was loaded for a model of {task.n_tokens} tokens; model {decoder.name!r} has "
                f"{decoder.config.n_tokens}. Load it for this model"
            )
        self.decoder, self.graph = decoder, graph
        self.circuit = (complement_of(circuit) if complement else circuit).on(graph)
        self._run = runner_of(decoder, graph, self.circuit)
        self._constants = self._corrupt = None
        if isinstance(ablation, Constants):
            ablation = Ablation("mean", constants=ablation)
        given = Ablation.of(ablation or ("zero" if corrupt is None else "resample"))
        if given.name == "resample":
            self._corrupt = _corrupt_tokens(decoder, corrupt)
        elif corrupt is not None:
            raise EdgewiseError(f"a corrupted prompt is for ablation 'resample', not {given.name!r}")
        else:
            self._constants = _constants(decoder, graph, given, task)

    @torch.no_grad()
    def _ablated(self, tokens: Tensor, mask: Tensor) -> Ablated:
        if self._constants is not None:
            return ablated_run(self.decoder, mask, *self._constants.spread(*tokens.shape))
        assert self._corrupt is not None
        corrupt, length = self._corrupt, self._corrupt.shape[1]
        if len(tokens) % len(corrupt):
            raise EdgewiseError(
                f"there are {len(corrupt)} corrupted prompts and {len(tokens)} rows of text: give one, or one per row"
            )
        if int(mask.sum(dim=1).min()) < length:
            raise EdgewiseError(
                f"the corrupted prompt has {length} tokens and the text only {int(mask.sum(dim=1).min())}: ablation "
                "'resample' swaps activations position by position, so the text should be as long or go on beyond it"
            )
        corrupted = tokens.clone()
        corrupted[:, :length] = corrupt.repeat_interleave(len(tokens) // len(corrupt), dim=0)
        run = forward(self.decoder, corrupted, mask, split_embedding=self.graph.split_embedding)
        return ablated_run(self.decoder, mask, run.embedding, run.codes)

    def final_stream(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The circuit's final residual stream `[batch, pos, d_model]` on token ids `[batch, pos]`.

        Args:
            mask: `[batch, pos]`, True where a token is real; padding may stand on the right or on the left, and
                positions count from a row's first real token.

        Raises:
            EdgewiseError: no tokens, too many, ids beyond the model's vocabulary, or padding between real tokens.
        """
        tokens = tokens.to(self.decoder.device)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(tokens.device).bool()
        self._check(tokens, mask)
        # Circuits run on prompts that are padded on the right.
        order = (~mask).long().argsort(dim=1, stable=True)
        tokens, mask = tokens.gather(1, order), mask.gather(1, order)
        step, pieces = self._rows_at_once(tokens.shape[1]), []
        if self._corrupt is not None and len(self._corrupt) > 1:
            step = len(tokens)  # they belong to rows
        for first in range(0, len(tokens), step):
            rows, real = tokens[first : first + step], mask[first : first + step]
            pieces.append(self._run(rows, real, self._ablated(rows, real), None))
        final = torch.cat(pieces)
        return final.gather(1, order.argsort(dim=1)[..., None].expand_as(final))

    def logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The circuit's logits `[batch, pos, d_vocab]`, as `final_stream`."""
        return self.decoder.logits(self.final_stream(tokens, mask))

    def _rows_at_once(self, length: int) -> int:
        # The differences that every sender writes, and the streams that a layer's heads read.
        streams = len(self.graph.sources) + 4 * self.graph.n_heads
        return max(1, ROW_BYTES // (4 * streams * length * self.decoder.config.d_model))

    def _check(self, tokens: Tensor, mask: Tensor) -> None:
        config = self.decoder.config
        if tokens.dim() != 2 or not tokens.numel() or mask.shape != tokens.shape:
            raise EdgewiseError(
                f"a circuit runs on token ids and a mask [batch, pos], not {list(tokens.shape)} and {list(mask.shape)}"
            )
        low, high = int(tokens[mask].min()) if mask.any() else 0, int(tokens[mask].max()) if mask.any() else 0
        if low < 0 or high >= config.n_tokens:
            raise EdgewiseError(
                f"the model has tokens 0 to {config.n_tokens - 1}, and the text has {min(low, high)} to {high}"
            )
        if config.n_context is not None and int(mask.sum(dim=1).max()) > config.n_context:
            raise EdgewiseError(
                f"{int(mask.sum(dim=1).max())} tokens are too many: model {self.decoder.name!r} has "
                f"{config.n_context} positions"
            )
        begins = mask[:, 0].long() + (mask[:, 1:] & ~mask[:, :-1]).sum(dim=1)
        if not bool((begins == 1).all()):
            raise EdgewiseError("every row of a text should have real tokens, with padding before or behind them alone")


def _corrupt_tokens(decoder: Decoder, corrupt: Corrupt | None) -> Tensor:
    """The corrupted prompts, `[rows, pos]`."""
    if corrupt is None:
        raise EdgewiseError(
            "ablation 'resample' carries what the paired corrupted prompt writes, and new text has none: give one as "
            "corrupt, or take ablation 'mean' with a task, or 'zero'"
        )
    if isinstance(corrupt, str):
        corrupt = [encode(decoder, corrupt)]
    try:
        tokens = torch.as_tensor(corrupt, dtype=torch.long).to(decoder.device)
    except (TypeError, ValueError, RuntimeError):
        raise EdgewiseError("a corrupted prompt is a text or token ids, and all of them have one length") from None
    tokens = tokens[None] if tokens.dim() == 1 else tokens
    if tokens.dim() != 2 or not tokens.numel():
        raise EdgewiseError("a corrupted prompt is a text or token ids, and all of them have one length")
    if int(tokens.min()) < 0 or int(tokens.max()) >= decoder.config.n_tokens:
        raise EdgewiseError(f"a corrupted prompt has tokens that the model lacks: it has {decoder.config.n_tokens}")
    return tokens


def _constants(decoder: Decoder, graph: Graph, ablation: Ablation, task: Task | None) -> Constants:
    """What every node carries at every place, by an ablation that says so."""
    split = graph.split_embedding
    if ablation.name not in ABLATIONS:
        raise unknown("ablation", ablation.name, ABLATIONS)
    if ablation.constants is not None:
        return ablation.constants.on(decoder, split)
    if ablation.name in _OF_THE_TASK:
        raise EdgewiseError(
            f"ablation {ablation.name!r} says what absent edges carry on a task's own prompts, and nothing about new "
            "text; take 'zero', 'mean', 'mean-clean', 'optimal', or 'resample' with a corrupted prompt"
        )
    if ablation.name == "zero":
        with torch.no_grad():
            one = torch.zeros(1, 1, dtype=torch.long, device=decoder.device)
            run = forward(decoder, one, one == 0, split_embedding=split)
        return Constants(torch.zeros_like(run.embedding[:, 0, 0]), tuple(torch.zeros_like(c[0, 0]) for c in run.codes))
    if task is None and (ablation.name == "optimal" or ablation.over is None):
        raise EdgewiseError(
            f"ablation {ablation.name!r} needs prompts to be worked out on: give the task, or the constants of a run"
        )
    if ablation.name == "optimal":
        assert task is not None
        found = Experiment(decoder, task, ablation=ablation, graph=graph).carried.constants
    else:
        prompts: Any = None if task is None else task.prompts
        found = constants_of(decoder, prompts, ablation, split)
    assert found is not None
    return found


@contextmanager
def applied(
    circuit: Circuit,
    model: nn.Module | Decoder | Any,
    ablation: str | Ablation | Constants | None = None,
    *,
    task: Task | None = None,
    corrupt: Corrupt | None = None,
    complement: bool = False,
) -> Iterator[Any]:
    """A circuit in place of a model's forward pass, for as long as the block lasts.

    Args:
        circuit: over the model's own graph, with port edges or without, of edges, whole nodes, neurons or output
            dimensions; not one that tells positions apart.
        model: a live `transformers` model (one inside a `PeftModel` too), or a Decoder, whose source model it is then.
        ablation: what absent edges carry: a name, an `Ablation`, or the `Constants` of a run. By default `resample`
            where a corrupted prompt is given, else `zero`.
        task: for `mean` and `mean-clean`, the prompts to take the mean over; for `optimal`, to learn on.
        corrupt: for `resample`, the corrupted prompt, of as many tokens as the prompt. Where the text goes on beyond
            it, the corrupted run reads the text's own tokens.
        complement: run everything but the circuit (`graph.complement`).

    Yields:
        The live model. Its `forward` takes what it took (`input_ids`, `attention_mask`, `logits_to_keep`), and gives
        logits and nothing else; `generate` recomputes the whole text at every step.

    Raises:
        EdgewiseError: another model's graph, an ablation that says nothing about new text, or a wrapper whose forward
            pass cannot be replaced. Inside the block: a cache, embeddings instead of tokens, labels, or positions other
            than 0, 1, 2, …
    """
    decoder, live = _opened(model)
    run = TextCircuit(circuit, decoder, ablation, task=task, corrupt=corrupt, complement=complement)
    own = vars(live).get("forward")
    settings = getattr(live, "generation_config", None)
    cached = getattr(settings, "use_cache", None)
    live.forward = _forward(run, live.forward)
    if settings is not None:
        settings.use_cache = False
    try:
        yield live
    finally:
        if own is None:
            del live.forward
        else:
            live.forward = own
        if settings is not None:
            settings.use_cache = cached


def _opened(model: Any) -> tuple[Decoder, Any]:
    """A Decoder of a model, and the module whose forward pass is to be replaced."""
    if isinstance(model, Decoder):
        return model, _free(model.source)
    kind = type(model).__name__
    inside: Any = model if is_peft(model) else unwrap(model)
    if not isinstance(inside, nn.Module):
        raise EdgewiseError(f"a circuit is applied to a live transformers model or a Decoder, not to a {kind}")
    if is_bridge(inside) or (inside is not model and isinstance(model, nn.Module)):
        raise EdgewiseError(
            f"the forward pass of a {kind} cannot be replaced; apply the circuit to the model inside it"
        )
    wrapper: Any = model
    live = _free(wrapper.get_base_model() if is_peft(model) else inside)
    decoder = load_model(model)
    tokens = random_prompts(decoder, rows=1, length=8)
    check(decoder, tokens, torch.ones_like(tokens, dtype=torch.bool))
    return decoder, live


def _free(live: Any) -> Any:
    """The model, if no circuit is applied to it."""
    if hasattr(live.forward, "applied_circuit"):
        raise EdgewiseError("a circuit is applied to this model already; end that block first")
    return live


_HARMLESS = ("cache_position", "return_dict")
_IDLE = ("use_cache", "output_attentions", "output_hidden_states", "output_router_logits")
"""Arguments of a forward pass that ask for nothing unless they are true."""
_NAMES = {"tokens": "input_ids"}


def _forward(run: TextCircuit, original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands in place of a model's forward pass; it says of itself that it takes what that one takes."""
    signature = inspect.signature(original)
    plain = "tokens" in signature.parameters  # gives logits as they are

    @functools.wraps(original)
    def forward(*given: Any, **named: Any) -> Any:
        told: dict[str, Any] = {}
        for name, value in signature.bind(*given, **named).arguments.items():
            kind = signature.parameters[name].kind
            told |= value if kind is inspect.Parameter.VAR_KEYWORD else {_NAMES.get(name, name): value}
        tokens, mask = told.pop("input_ids", None), told.pop("attention_mask", None)
        positions, keep = told.pop("position_ids", None), told.pop("logits_to_keep", 0)
        as_tuple = told.get("return_dict") is False
        _refuse_others(tokens, mask, told)
        mask = torch.ones_like(tokens) if mask is None else mask
        _check_positions(positions, mask.bool())
        final = run.final_stream(tokens, mask)
        if isinstance(keep, Tensor):
            final = final[:, keep]
        elif keep:
            final = final[:, -keep:]
        logits = run.decoder.logits(final).to(run.decoder.dtype)
        if plain:
            return logits
        if as_tuple:
            return (logits,)
        from transformers.modeling_outputs import CausalLMOutputWithPast

        return CausalLMOutputWithPast(logits=logits)

    forward.applied_circuit = run.circuit  # type: ignore[attr-defined] - a mark: there is one at a time
    return forward


def _refuse_others(tokens: Any, mask: Any, told: Mapping[str, Any]) -> None:
    """Refuse what a circuit run has no answer to, rather than pass over it."""
    if told.get("past_key_values") is not None or told.get("use_cache"):
        raise EdgewiseError(
            "a circuit is run over the whole text at every step, so there is no cache of keys and values: leave "
            "use_cache and past_key_values out (use_cache=False)"
        )
    if not isinstance(tokens, Tensor):
        raise EdgewiseError("a circuit is applied to tokens: give input_ids, not embeddings")
    if mask is not None and mask.shape != tokens.shape:
        raise EdgewiseError(
            f"a circuit is applied under a mask of real tokens {list(tokens.shape)}, not {list(mask.shape)}"
        )
    told = {name: value for name, value in told.items() if value is not None and name not in _HARMLESS}
    others = [name for name, value in told.items() if name not in _IDLE or value]
    if others:
        raise EdgewiseError(f"a circuit gives logits and nothing else; it takes no {', '.join(others)}")


def _check_positions(positions: Tensor | None, mask: Tensor) -> None:
    if positions is None:
        return
    counted = mask.long().cumsum(dim=1) - 1
    if not torch.equal(positions.to(mask.device).expand_as(counted)[mask], counted[mask]):
        raise EdgewiseError("a circuit counts positions 0, 1, 2, … from a row's first real token; these are others")


Circuit.applied = applied  # type: ignore[assignment] - a method of circuits that needs torch
