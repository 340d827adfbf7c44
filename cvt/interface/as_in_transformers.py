"""What notebooks, the Trainer and the pipelines of transformers ask of a model."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import nn


class AsInTransformers(nn.Module):
    """The small things of transformers' PreTrainedModel, under its names."""

    main_input_name: ClassVar[str] = "pixel_values"
    input_modalities: ClassVar[tuple[str, ...]] = ("image",)
    base_model_prefix: ClassVar[str] = "backbone"
    supports_gradient_checkpointing: ClassVar[bool] = True
    config: Any

    def __call__(self, *inputs: Any, return_dict: bool | None = None, **options: Any) -> Any:
        """``forward``, with a plain tuple as the result for ``return_dict=False``.

        What ``config.output_hidden_states`` and ``config.output_attentions`` say holds unless the
        call says otherwise.
        """
        for name in ("output_hidden_states", "output_attentions"):
            if getattr(self.config, name, False):
                options.setdefault(name, True)
        out = super().__call__(*inputs, **options)
        return out.to_tuple() if return_dict is False else out

    @property
    def base_model(self) -> nn.Module:
        """The backbone; a backbone is its own."""
        backbone: nn.Module = getattr(self, self.base_model_prefix, self)
        return backbone

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def num_labels(self) -> int:
        """How many classes the configuration names."""
        return int(self.config.num_labels)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights are; of those in training only, if asked.

        ``exclude_embeddings`` means those of words, of which there are none.
        """
        wanted = (p for p in self.parameters() if p.requires_grad or not only_trainable)
        return sum(p.numel() for p in wanted)

    @classmethod
    def can_generate(cls) -> bool:
        """No: it is no language model."""
        return False

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Trade time for memory: recompute each block's activations in the backward pass.

        It is always PyTorch's variant without reentrance, whatever ``use_reentrant`` says: the
        gradients are the same.

        Raises:
            ValueError: there are other options.
        """
        if others := sorted(set(gradient_checkpointing_kwargs or {}) - {"use_reentrant"}):
            raise ValueError(f"gradient checkpointing has no option {', '.join(others)}")
        self._checkpoint(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self._checkpoint(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed anywhere."""
        return any(getattr(m, "gradient_checkpointing", False) for m in self.modules())

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """``gradient_checkpointing_enable``, as release 5 of transformers calls it.

        Raises:
            ValueError: an option asks for anything else.
        """
        if every_n_layers != 1 or offload:
            raise ValueError("every block is recomputed, and nothing is offloaded: no other way")
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def activation_checkpointing_disable(self) -> None:
        """``gradient_checkpointing_disable``, as release 5 of transformers calls it."""
        self.gradient_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """``is_gradient_checkpointing``, as release 5 of transformers calls it."""
        return self.is_gradient_checkpointing

    def _checkpoint(self, on: bool) -> None:
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                cast(Any, module).gradient_checkpointing = on
