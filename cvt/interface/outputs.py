"""What the models return: attributes, a mapping and a tuple in one.

``out.logits``, ``out["logits"]`` and ``**out`` as in transformers, whose Trainer and pipelines look
for a dict; ``out[0]`` and ``out.to_tuple()`` too. Known to PyTorch's pytrees, so that torch.export,
DataParallel and FSDP take them apart and together again.
"""

from collections import OrderedDict
from typing import Any, SupportsIndex, overload

from torch import Tensor
from torch.utils import _pytree as pytree


class Output(OrderedDict[str, Any]):
    """Named results, made as a dict is made. Those that were not asked for are None, and no keys.

    The annotations of a subclass are its fields, in the order of its tuple.
    """

    def __init__(self, *items: Any, **named: Any) -> None:
        super().__init__(*items, **named)
        for name in [name for name, value in self.items() if value is None]:
            del self[name]

    def __init_subclass__(cls) -> None:
        pytree.register_pytree_node(
            cls,
            lambda out: (list(out.values()), list(out)),
            lambda values, names: cls(zip(names, values, strict=True)),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=lambda out: (
                [(pytree.MappingKey(name), value) for name, value in out.items()],
                list(out),
            ),
        )

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in type(self).__annotations__:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}, but {', '.join(self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there, in the order of transformers' outputs.

        ``embedding``, which those lack, is not among them.
        """
        names = (name for name in type(self).__annotations__ if name != "embedding")
        return tuple(self[name] for name in names if name in self)


class CvtModelOutput(Output):
    """Result of CvtModel; maps are (B, C, H, W), before any norm."""

    last_hidden_state: Tensor
    """The last stage's map."""
    cls_token_value: Tensor | None
    """The last stage's class token (B, 1, C), before the norm."""
    hidden_states: tuple[Tensor, ...] | None
    """The map after each stage, when asked for."""
    attentions: dict[str, Tensor] | None
    """Attention weights (B, heads, T, T') by block, e.g. "stages.2.blocks.9", when asked for."""


class CvtOutput(Output):
    """Result of CvtForImageClassification."""

    loss: Tensor | None
    """A scalar, when labels were given."""
    logits: Tensor
    """(B, N), one for each class."""
    hidden_states: tuple[Tensor, ...] | None
    """The map after each stage, when asked for."""
    attentions: dict[str, Tensor] | None
    """Attention weights (B, heads, T, T') by block, when asked for."""
    embedding: Tensor
    """(B, C): the head's input, LayerNorm(class token)."""
