"""Activations of a language model in PyTorch, as rows to train on. transformers is not needed."""

from __future__ import annotations

import difflib
import os
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Union

import torch

from .errors import UsageError

Batch = Union[torch.Tensor, Mapping[str, Any], List[List[int]]]


def from_hf(
    model: torch.nn.Module,
    layer: str,
    batches: Iterable[Batch],
    *,
    exclude_special: bool = True,
    tokenizer: Any = None,
    context: Optional[int] = None,
) -> "Activations":
    """What the module `layer` of the model puts out for batches of tokens, for `saetta.train`.

    model: any module whose forward takes input_ids and attention_mask; the pass ends after the
    layer. layer: a name of model.named_modules(), such as "model.layers.6". batches: token ids
    [contexts, context] as tensors or lists, or dicts with input_ids and attention_mask, as
    tokenizers of transformers return them.

    exclude_special: do not train on special tokens, which are those of the tokenizer, else bos, eos
    and pad of model.config. context: tokens per context, where later batches are longer than the
    first; shorter ones are padded. Throws UsageError.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        near = difflib.get_close_matches(layer, modules, n=3)
        raise UsageError(f"{layer}: the model has no such module" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return Activations(model, layer, batches, _special_ids(model, tokenizer) if exclude_special else set(), tokenizer, context)


class Activations:
    """Iterates over {"activations", "tokens", "mask"}; made by `from_hf`."""

    def __init__(
        self,
        model: torch.nn.Module,
        layer: str,
        batches: Iterable[Batch],
        special: Set[int],
        tokenizer: Any,
        context: Optional[int],
    ) -> None:
        self._model, self._layer, self._batches = model, layer, batches
        self._special = torch.tensor(sorted(special), dtype=torch.long)
        self._context = context
        #: For the header of the rows.
        self.about: Dict[str, Any] = {"model": _name(model), "tensor": layer, "tokenizer": _tokenizer_file(tokenizer)}
        start = _start_id(model, tokenizer)
        if start in special:
            self.about["start_token"] = start

    def __iter__(self) -> Iterator[Dict[str, torch.Tensor]]:
        """activations [contexts, context, width], tokens and mask [contexts, context], on the model's device."""
        model, context = self._model, self._context
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        special = self._special.to(device)
        was_training = model.training
        model.eval()
        try:
            for index, batch in enumerate(self._batches):
                inputs = _inputs(batch, device)
                ids = inputs["input_ids"]
                length = ids.shape[1]
                context = context or length
                if length > context:
                    raise UsageError(
                        f"batch {index} has contexts of {length} tokens, more than {context}; give from_hf context={length}"
                    )
                with torch.no_grad():
                    values = self._run(inputs)
                    mask = inputs.get("attention_mask", torch.ones_like(ids)) != 0
                    if len(special) > 0:
                        mask = mask & ~torch.isin(ids, special)
                    pad = context - length
                    values = torch.nn.functional.pad(values, (0, 0, 0, pad))
                    ids, mask = (torch.nn.functional.pad(each, (0, pad)) for each in (ids, mask))
                yield {"activations": values, "tokens": ids, "mask": mask}
        finally:
            if was_training:
                model.train()

    def _run(self, inputs: Dict[str, Any]) -> torch.Tensor:
        """The layer's output [contexts, context, width] for one batch."""
        got: List[Any] = []

        def take(module: torch.nn.Module, args: Any, output: Any) -> None:
            got.append(output)
            raise _Reached

        handle = self._model.get_submodule(self._layer).register_forward_hook(take)
        try:
            self._model(**inputs)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not got:
            raise UsageError(f"{self._layer}: the model's forward pass does not reach this module")
        values = got[0] if isinstance(got[0], torch.Tensor) else got[0][0]
        ids = inputs["input_ids"]
        if not isinstance(values, torch.Tensor) or values.shape[:2] != ids.shape or values.dim() != 3:
            what = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise UsageError(f"{self._layer}: puts out {what}, not [contexts, context, width]; name another module")
        return values


class _Reached(BaseException):
    """Ends a forward pass; no `except Exception` of a model may catch it."""


def token_batches(
    texts: Iterable[str], tokenizer: Any, *, context: int = 128, size: int = 32
) -> Iterator[torch.Tensor]:
    """Token ids of texts for `from_hf`: documents one after another, without padding.

    tokenizer: of transformers or tokenizers. Each text, and each context, begins with the
    tokenizer's bos token, where it has one. Yields [size, context]; the last may have fewer
    contexts, and a rest that fills none is left out.
    """
    start = getattr(tokenizer, "bos_token_id", None)
    head = [] if start is None else [start]
    ids: List[int] = list(head)
    rows: List[List[int]] = []
    for text in texts:
        if len(ids) > len(head):
            ids.extend(head)
        ids.extend(_encoded(tokenizer, text))
        while len(ids) >= context:
            rows.append(ids[:context])
            ids = head + ids[context:]
            if len(rows) == size:
                yield torch.tensor(rows)
                rows = []
    if rows:
        yield torch.tensor(rows)


def _encoded(tokenizer: Any, text: str) -> List[int]:
    coded = tokenizer.encode(text, add_special_tokens=False)
    return list(getattr(coded, "ids", coded))


def _inputs(batch: Batch, device: torch.device) -> Dict[str, Any]:
    """Arguments of the model's forward pass, on its device."""
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        inputs = {name: batch[name] for name in batch.keys()}  # type: ignore[union-attr]
    else:
        inputs = {"input_ids": batch}
    if "input_ids" not in inputs:
        raise UsageError("a batch of tokens has no input_ids")
    if isinstance(inputs["input_ids"], (list, tuple)):
        inputs.update(_padded(inputs["input_ids"]))
    if not isinstance(inputs["input_ids"], torch.Tensor) or inputs["input_ids"].dim() != 2:
        raise UsageError("token ids must be [contexts, context]")
    return {name: torch.as_tensor(value).to(device) for name, value in inputs.items()}


def _padded(contexts: Any) -> Dict[str, torch.Tensor]:
    """Lists of token ids as one tensor; shorter ones end in padding that the mask leaves out."""
    longest = max(map(len, contexts), default=0)
    ids = [[*context, *[0] * (longest - len(context))] for context in contexts]
    mask = [[1] * len(context) + [0] * (longest - len(context)) for context in contexts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _special_ids(model: torch.nn.Module, tokenizer: Any) -> Set[int]:
    ids = getattr(tokenizer, "all_special_ids", None)
    if ids is None:
        config = getattr(model, "config", None)
        ids = [getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
    flat: List[Any] = []
    for each in ids:
        flat.extend(each if isinstance(each, (list, tuple)) else [each])  # some models have several eos
    return {each for each in flat if isinstance(each, int)}


def _start_id(model: torch.nn.Module, tokenizer: Any) -> Optional[int]:
    start = getattr(tokenizer, "bos_token_id", None)
    return start if start is not None else getattr(getattr(model, "config", None), "bos_token_id", None)


def _name(model: torch.nn.Module) -> str:
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__


def _tokenizer_file(tokenizer: Any) -> Optional[str]:
    """tokenizer.json, where the tokenizer is a path or came from a folder."""
    place = tokenizer if isinstance(tokenizer, (str, os.PathLike)) else getattr(tokenizer, "name_or_path", None)
    if not place:
        return None
    path = os.path.join(place, "tokenizer.json") if os.path.isdir(place) else os.fspath(place)
    return os.path.abspath(path) if os.path.isfile(path) else None
