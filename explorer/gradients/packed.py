"""Losses of sequences that lie one behind the other in one row: nothing is computed of padding.

In the packed form of transformers, positions begin anew with every sequence, and the mask that is made of them keeps
the sequences apart, sliding windows and all. Attention is taken here by that mask's blocks, one a sequence.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from explorer.gradients.losses import Gradient, token_losses
from explorer.model.language_model import LanguageModel
from explorer.model.substitution import substituted
from explorer.records import Encoded

_BY_SEQUENCE = "sdpa_by_sequence"
"""What transformers knows this attention by."""
_ALLOWED = 1e-3
"""Losses of one batch in both forms differ by less, in nats, where the network knows the packed form."""


Losses = Callable[[LanguageModel, Sequence[Encoded], Gradient | None], list[torch.Tensor]]
"""As `token_losses` takes and gives them."""


def losses_of(model: LanguageModel, batch: Sequence[Encoded], mixed: bool) -> Losses:
    """How the losses of a training's batches are taken, of which one is given.

    In mixed precision without padding, where the network knows the packed form. In float32 batches keep the form that
    earlier trainings had, and so their last digits.
    """
    return packed_losses if mixed and packs(model, batch) else token_losses


def packed_losses(
    model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None = None
) -> list[torch.Tensor]:
    """As `token_losses` gives them, but for last digits; only for networks that `packs` says yes to."""
    device, lengths = model.device, [len(item.ids) for item in batch]
    starts = np.cumsum([0, *lengths])
    scored = np.concatenate(
        [
            np.arange(start + item.response_start, start + len(item.ids))
            for start, item in zip(starts, batch, strict=False)
        ]
    )
    ids = np.concatenate([item.ids for item in batch])
    attention = model.network.config._attn_implementation
    model.network.set_attn_implementation(_BY_SEQUENCE)
    try:
        with substituted(model.network, tensors or {}):
            logits = model.network(
                input_ids=torch.from_numpy(ids[None]).to(device),
                position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])[None]).to(device),
                use_cache=False,
                logits_to_keep=torch.from_numpy(scored - 1).to(device),
                cu_seq_lens_q=torch.from_numpy(starts),
            ).logits[0]
    finally:
        model.network.set_attn_implementation(attention)
    targets = torch.from_numpy(ids[scored]).to(device)
    losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    return list(losses.split([item.response_length for item in batch]))


def packs(model: LanguageModel, batch: Sequence[Encoded]) -> bool:
    """Whether the network gives the same losses in packed form, tried on one batch in its own precision."""
    if len(batch) < 2 or model.network.config._attn_implementation != "sdpa":
        return False
    with torch.no_grad():
        one, other = (torch.cat(losses(model, batch)) for losses in (token_losses, packed_losses))
    return bool(torch.allclose(one, other, rtol=0, atol=_ALLOWED))


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (1, T, heads, width) of queries, keys and values (1, heads, T, width), each sequence by itself."""
    if attention_mask is None or cu_seq_lens_q is None:
        # A network that hands on neither mixes the sequences, which `packs` finds out.
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    found = []
    for place, mask in _blocks(attention_mask, cu_seq_lens_q):
        q, k, v = query[:, :, place], key[:, :, place], value[:, :, place]
        found.append(sdpa_attention_forward(module, q, k, v, mask, dropout, scaling, **others)[0])
    return torch.cat(found, dim=1), None


def _blocks(mask: torch.Tensor, ends: torch.Tensor) -> list[tuple[slice, torch.Tensor | None]]:
    """Where every sequence lies, and its block of the mask; None where it sees all that is before, which is quicker."""
    if mask not in _found:
        places = [slice(start, stop) for start, stop in pairwise(ends.tolist())]
        blocks = [mask[:, :, place, place] for place in places]
        whole = [int(block.sum()) == block.shape[-1] * (block.shape[-1] + 1) // 2 for block in blocks]
        _found[mask] = [(place, None if all_ else own) for place, own, all_ in zip(places, blocks, whole, strict=True)]
    known: list[tuple[slice, torch.Tensor | None]] = _found[mask]
    return known


_found = WeakIdKeyDictionary()
"""The blocks of the masks in use: all layers of a network are given the same one or two."""
AttentionInterface.register(_BY_SEQUENCE, _attention)
AttentionMaskInterface.register(_BY_SEQUENCE, sdpa_mask)
