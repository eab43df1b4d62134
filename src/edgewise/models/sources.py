"""Where models come from: folders, the Hugging Face hub, .gguf files and PEFT adapters; each read on the CPU."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewise.errors import EdgewiseError, EdgewiseWarning, first_line, near_matches
from edgewise.models import interp_bench
from edgewise.models.built_in import BUILT_IN, GETTABLE, got, read_got
from edgewise.models.checkpoint import (
    attention_of,
    check_folder,
    check_sizes,
    refuse_multimodal,
    require_fit,
    unreadable,
)
from edgewise.models.converted import lazy_tensors
from edgewise.models.device_map import DeviceMap
from edgewise.models.gguf_file import read_gguf
from edgewise.models.huggingface import ADAPTERS, unsupported
from edgewise.models.offloaded import device_map
from edgewise.models.peft_adapter import ADAPTER, merge_adapter, read_adapter_config
from edgewise.models.transformer_lens import (
    ALIASES,
    build_transformer_lens,
    choose_weights,
    is_transformer_lens,
    read_config_file,
    read_state,
)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has a model of the hub, as far as its configuration tells."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(ALIASES.get(name, name), "config.json"), str)
    except HFValidationError:  # it is no name of the hub's
        return False


@dataclass(frozen=True)
class Loaded:
    """A source model as it was read.

    Attributes:
        model: on the CPU, or where a device map says, in the dtype asked for.
        tokenizer: as asked for, else the model's own, or None where it has none.
        why_no_tokenizer: the reason, for errors.
        origin: what a run's record says of where it came from, beside its name.
    """

    model: nn.Module
    tokenizer: Any = None
    why_no_tokenizer: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A model to be read.

    Attributes:
        name: what the user called it.
        dtype: of its weights.
        tokenizer: what to use in place of its own.
        revision: the hub's branch, tag or commit; None for the main one.
        trust_layout: read it though its family is not known.
        device_map: where its weights go; None for all of them on the CPU.
    """

    name: str
    dtype: torch.dtype
    tokenizer: Any = None
    revision: str | None = None
    trust_layout: bool = False
    device_map: DeviceMap | None = None

    def read(self) -> Loaded:
        """The model of a .gguf file, a folder, a name of those that `edgewise models get` has got, or a hub id.

        Raises:
            EdgewiseError: there is none of that name, or it cannot be read; the message says why.
        """
        folder = Path(self.name).expanduser()
        if folder.is_dir() or folder.exists():
            if self.revision is not None:
                raise EdgewiseError(
                    f"model {self.name!r} is on this machine: a revision ({self.revision!r}) is for models from the hub"
                )
            if folder.is_dir():
                return self.from_folder(folder)
            self._whole("a .gguf file")
            if folder.suffix.lower() != ".gguf":
                raise EdgewiseError(
                    f"model {self.name!r} is a file, and no .gguf file; give the folder that holds its config.json and "
                    "weights"
                )
            with quiet():
                model, tokenizer, about = read_gguf(self.name, folder, self.dtype, self.tokenizer)
            if "ignored" in about:
                warnings.warn(
                    f"model {self.name!r}: transformers does not read the scaling of rotary positions from GGUF "
                    f"({', '.join(about['ignored'])}), so its attention is a little off; its original folder has it "
                    "right",
                    EdgewiseWarning,
                    stacklevel=2,
                )
            return Loaded(model, tokenizer, origin={"gguf": {"file": str(folder.resolve()), **about}})
        if self.name in GETTABLE:
            return self._got()
        if folder.suffix.lower() == ".gguf":
            raise EdgewiseError(f"model {self.name!r}: there is no such file")
        if self.name.startswith((".", "/", "~")) or self.name.count("/") > 1:
            raise EdgewiseError(f"model {self.name!r}: there is no such folder")
        return self._from_hub()

    def from_folder(self, folder: Path) -> Loaded:
        if (folder / ADAPTER).is_file():
            self._whole("a PEFT adapter")
            return self._with_adapter(read_adapter_config(folder / ADAPTER, self.name), folder)
        if (folder / interp_bench.CONFIG).is_file() and not (folder / "config.json").is_file():
            self._whole("a model of InterpBench")
            config = interp_bench.read_config(folder / interp_bench.CONFIG, self.name)
            return self._from_transformer_lens(folder, config, interp_bench.weights_in(folder, self.name))
        if not (folder / "config.json").is_file():
            raise EdgewiseError(
                f"model folder {str(folder)!r} has no config.json, so it is neither in Hugging Face's layout nor in "
                "TransformerLens'"
            )
        config = read_config_file(folder / "config.json", self.name)
        if is_transformer_lens(config):
            self._whole("a model in TransformerLens' layout")
            weights = folder / choose_weights([file.name for file in folder.iterdir()], self.name)
            return self._from_transformer_lens(folder, config, weights)
        check_sizes(config, self.name)
        if config.get("model_type") in ADAPTERS:
            check_folder(folder, config, self.name)
        return self._from_transformers(folder)

    def _whole(self, what: str) -> None:
        """Refuse a device map for what transformers does not load itself."""
        if self.device_map is not None:
            raise EdgewiseError(f"model {self.name!r} is {what}: a device map is for models in Hugging Face's layout")

    def _got(self) -> Loaded:
        if self.revision is not None:
            raise EdgewiseError(
                f"model {self.name!r} has no revision ({self.revision!r}): name its hub id, {GETTABLE[self.name].hub}"
            )
        folder = got(self.name)
        if folder is None:
            raise EdgewiseError(f"model {self.name!r} is not on this machine yet: edgewise models get {self.name}")
        loaded = self.from_folder(folder)
        return replace(loaded, origin={"got": read_got(folder), **loaded.origin})

    def _from_hub(self) -> Loaded:
        import huggingface_hub

        repository, config, folder = ALIASES.get(self.name, self.name), {}, Path()
        origin = {} if self.revision is None else {"revision": self.revision}

        def download(file: str) -> Path:
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=self.revision))

        try:
            path = download("config.json")
            config, folder = read_config_file(path, self.name), path.parent
        except (EdgewiseError, OSError, ValueError):
            pass  # not there, not to be had, not an id: transformers looks again, and its error says which
        if not config:
            try:
                adapter = download(ADAPTER)
            except (OSError, ValueError):
                adapter = None
            if adapter is not None:
                self._whole("a PEFT adapter")
                loaded = self._with_adapter(read_adapter_config(adapter, self.name), None)
                return replace(loaded, origin={**origin, **loaded.origin})
        if not is_transformer_lens(config):
            if repository != self.name and not config:
                raise self._not_found(FileNotFoundError(), repository)
            check_sizes(config, self.name)
            loaded = self._from_transformers(None)
            return replace(loaded, origin={**origin, **loaded.origin})
        self._whole("a model in TransformerLens' layout")
        try:
            files = huggingface_hub.list_repo_files(repository, revision=self.revision)
        except Exception:  # offline: what the local cache has
            files = [file.name for file in folder.iterdir()]
        chosen = choose_weights(files, self.name)
        try:
            weights = download(chosen)
        except Exception as error:  # the hub's own errors, of many kinds
            raise EdgewiseError(f"the weights of model {self.name!r} cannot be had: {first_line(error)}") from None
        return replace(self._from_transformer_lens(folder, config, weights), origin=origin)

    def _with_adapter(self, config: Mapping[str, Any], folder: Path | None) -> Loaded:
        """The model that an adapter was trained on, with the adapter merged into it."""
        name, revision = config["base_model_name_or_path"], config.get("revision")
        base_folder = Path(name).expanduser()
        local = base_folder.is_dir()
        if local and (base_folder / ADAPTER).is_file():
            raise EdgewiseError(f"model {self.name!r} is an adapter of {name!r}, which is an adapter too")
        revision = None if local or not isinstance(revision, str) else revision
        tokenizer = self.tokenizer
        if tokenizer is None and folder is not None:
            with quiet():
                tokenizer = self._own_tokenizer(folder)
        try:
            base = Source(name, self.dtype, tokenizer, revision).read()
        except EdgewiseError as error:
            raise EdgewiseError(f"model {self.name!r} is an adapter of {name!r}: {error}") from None
        where = self.name if folder is None else str(folder)
        with quiet():
            merged = merge_adapter(base.model, where, self.name, self.revision)
        about = {"base": str(base_folder.resolve()) if local else name, "kind": config.get("peft_type")}
        if revision is not None:
            about["revision"] = revision
        return replace(base, model=merged, origin={"adapter": about})

    def _from_transformer_lens(self, folder: Path, config: Mapping[str, Any], weights: Path) -> Loaded:
        model = build_transformer_lens(config, read_state(weights, self.name), self.name, self.dtype)
        tokenizer, why = self.tokenizer, ""
        if tokenizer is None:
            tokenizer = self._own_tokenizer(folder)
        other = config.get("tokenizer_name")
        if tokenizer is None and other:
            # Without it the model still serves tasks made of token ids.
            try:
                with quiet():
                    tokenizer = Source(str(other), self.dtype)._own_tokenizer(None)
            except EdgewiseError as error:
                why = f" (its config.json names {other!r}: {error})"
        return Loaded(model, tokenizer, why)

    def _from_transformers(self, folder: Path | None) -> Loaded:
        # Imported here: transformers takes seconds to import, and built-in models and --help do without it.
        import transformers

        where = self.name if folder is None else str(folder)
        with quiet():
            try:
                config = transformers.AutoConfig.from_pretrained(where, revision=self.revision, trust_remote_code=False)
            except Exception as error:  # transformers raises errors of many kinds over a config.json that is not right
                if folder is not None:
                    what = f"model {self.name!r}: its config.json cannot be used: {first_line(error)}"
                    raise EdgewiseError(what) from None
                raise self._not_found(error) from None
            if config.model_type not in ADAPTERS:
                refuse_multimodal(config.to_dict(), self.name)
                if not self.trust_layout:
                    raise unsupported(self.name, config.model_type)
            try:
                spread = {} if self.device_map is None else self.device_map.for_loading(config)
                as_they_are = bool(spread) or hasattr(config, "quantization_config")
                tensors = lazy_tensors([] if as_they_are else self._checkpoint(where), self.dtype)
                auto: Any = transformers.AutoModelForCausalLM
                if tensors is not None:
                    auto = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
                loaded: Any = auto.from_pretrained(
                    where if tensors is None else None,
                    **({} if tensors is None else {"state_dict": tensors}),
                    revision=self.revision or "main",
                    config=config,
                    dtype=self.dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                    attn_implementation=attention_of(config),
                    **spread,
                )
                model, problems = loaded
            except EdgewiseError:
                raise
            except Exception as error:  # whatever safetensors, torch or the hub raise over a broken file
                if "device_map" in str(error) or "offload_folder" in str(error):
                    raise self._not_laid_out(error) from None
                raise unreadable(self.name, error) from None
            require_fit(self.name, problems)
            model.config.name_or_path = where
            origin: dict[str, Any] = {} if self.device_map is None else {"device_map": device_map(model)}
            if self.device_map is not None and self.device_map.folder is not None:
                origin["offload_folder"] = str(Path(self.device_map.folder).expanduser().resolve())
            own = self.tokenizer if self.tokenizer is not None else self._own_tokenizer(folder)
            return Loaded(model, own, origin=origin)

    def _not_laid_out(self, error: Exception) -> EdgewiseError:
        if "offload_folder" in str(error):
            return EdgewiseError(
                f"model {self.name!r}: weights that go to disk have to be written there, as they are not in the "
                "checkpoint the way they are needed: say where with --offload-folder (offload_folder)"
            )
        return EdgewiseError(f"model {self.name!r} cannot be laid out as the device map says: {first_line(error)}")

    def _checkpoint(self, where: str) -> list[Path]:
        """The model's safetensors files; none where it has others."""
        from transformers.utils.hub import cached_file

        def found(file: str) -> Path | None:
            there = cached_file(
                where, file, revision=self.revision or "main", _raise_exceptions_for_missing_entries=False
            )
            return None if there is None else Path(there)

        names = ["model.safetensors"]
        single = found(names[0])
        if single is not None:
            return [single]
        index = found("model.safetensors.index.json")
        if index is not None:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = [file for file in map(found, names) if file is not None]
        return files if len(files) == len(names) else []

    def _own_tokenizer(self, folder: Path | None) -> Any:
        """The model's tokenizer, or None where the folder has none: it still serves tasks made of token ids."""
        if folder is not None and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
            return None
        import transformers

        try:
            return transformers.AutoTokenizer.from_pretrained(
                self.name if folder is None else str(folder), revision=self.revision or "main", trust_remote_code=False
            )
        except Exception as error:  # whatever tokenizers and transformers raise over a broken file
            raise EdgewiseError(f"the tokenizer of model {self.name!r} cannot be read: {first_line(error)}") from None

    def _not_found(self, error: Exception, repository: str = "") -> EdgewiseError:
        causes: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            causes.append(type(cause).__name__)
            cause = cause.__cause__ or cause.__context__
        if "GatedRepoError" in causes:
            return EdgewiseError(
                f"model {self.name!r} is gated: ask for access on its hub page, then run `hf auth login`"
            )
        if "RevisionNotFoundError" in causes:
            return EdgewiseError(f"model {self.name!r} has no revision {self.revision!r} on the Hugging Face hub")
        if "RepositoryNotFoundError" in causes:
            why = "the Hugging Face hub has none of that name, or it is private"
        else:
            why = "it is not in the local Hugging Face cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
        known = (*BUILT_IN, *GETTABLE, *ALIASES, "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
        hint = "" if self.name in known else near_matches(self.name, known)
        also = f" (hub id {repository})" if repository else ""
        which = "" if self.revision is None else f" in revision {self.revision!r}"
        return EdgewiseError(
            f"cannot find model {self.name!r}{also}{which}: no built-in model or folder is called that; {why}{hint} "
            f"(built-in: {', '.join(BUILT_IN)})"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice that transformers prints while it loads; errors still come."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    others = [logging.getLogger(name) for name in ("huggingface_hub", "accelerate")]
    levels = [other.level for other in others]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for other in others:
        other.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
        for other, level in zip(others, levels, strict=True):
            other.setLevel(level)
