"""Declares the parameter names in the checkpoints of each family."""

import dataclasses
import re
from typing import NamedTuple


class Source(NamedTuple):
    """A module of a checkpoint, or one of several that are stacked in it by rows.

    Attributes:
      module: its name, with {} for the index of the layer.
      part: index of the part, from 0.
      parts: number of parts.
    """

    module: str
    part: int = 0
    parts: int = 1


class Head(NamedTuple):
    """Names of the head, which predicts tokens.

    Attributes:
      table: the module with a row per token, unless the word table is used.
      biases: the tensor with a bias per token, and the table's own bias, which applies if the table is not tied; empty
        if there is no bias.
      dense: the linear layer before the table, if any.
      norm: the norm after that layer.
      biased: whether both have a bias in every file.
    """

    table: str
    biases: tuple[str, ...] = ()
    dense: str = ""
    norm: str = ""
    biased: bool = True


@dataclasses.dataclass(frozen=True)
class Naming:
    """Names of a family's parameters.

    Attributes:
      word_table: the tensor with a row per token.
      modules: our module ('layer/' and its name, in a layer) -> the checkpoint's.
      head: names of the head.
      tables: our parameters outside modules -> the checkpoint's tensors.
      prefixes: prefixes that all names may have.
      unused: pattern for the names, without prefix, of unused tensors.
      bare_first: our norm that the first layer lacks.
    """

    word_table: str
    modules: dict[str, Source]
    head: Head
    tables: dict[str, str] = dataclasses.field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    unused: str = r"(?!)"
    bare_first: str = ""

    def plain(self, name: str) -> str:
        """Returns a checkpoint's name without prefix, in the current spelling: weight and bias, not gamma and beta."""
        for prefix in self.prefixes:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name))

    def sources(self, path: str, layers: int) -> list[Source]:
        """Returns the tensors of one of our parameters: a single one, or one per layer.

        Args:
          path: such as 'layers/query/kernel', 'last_layer/query/kernel' or 'final_norm/scale'.
          layers: number of layers of the model; the parameters of the last one are separate.

        Returns:
          The tensors by name; '' for one that the checkpoint lacks.
        """
        if path in self.tables:
            return [Source(self.tables[path])]
        module, _, leaf = path.rpartition("/")
        group, _, inner = module.rpartition("/")
        numbers = {"layers": range(layers - 1), "last_layer": range(layers - 1, layers)}.get(group, range(1))
        source = self.modules[f"layer/{inner}" if group else module]
        kind = "bias" if leaf == "bias" else "weight"
        return [
            source._replace(
                module=""
                if self.bare_first and i == 0 and inner == self.bare_first
                else f"{source.module.format(i)}.{kind}"
            )
            for i in numbers
        ]


def _modules(**names: str) -> dict[str, Source]:
    return {name.replace("__", "/"): Source(module) for name, module in names.items()}


_BERT = Naming(
    word_table="embeddings.word_embeddings.weight",
    modules=_modules(
        embedding_norm="embeddings.LayerNorm",
        layer__query="encoder.layer.{}.attention.self.query",
        layer__key="encoder.layer.{}.attention.self.key",
        layer__value="encoder.layer.{}.attention.self.value",
        layer__attention_output="encoder.layer.{}.attention.output.dense",
        layer__attention_norm="encoder.layer.{}.attention.output.LayerNorm",
        layer__intermediate="encoder.layer.{}.intermediate.dense",
        layer__output="encoder.layer.{}.output.dense",
        layer__output_norm="encoder.layer.{}.output.LayerNorm",
    ),
    tables={
        "position_embeddings": "embeddings.position_embeddings.weight",
        "type_embeddings": "embeddings.token_type_embeddings.weight",
    },
    prefixes=("bert.", "roberta."),
    unused=r"(cls|pooler|classifier|lm_head)\..*|embeddings\.(position_ids|token_type_ids)",
    head=Head(
        "cls.predictions.decoder",
        ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
    ),
)

_ROBERTA = dataclasses.replace(
    _BERT, head=Head("lm_head.decoder", ("lm_head.bias", "lm_head.decoder.bias"), "lm_head.dense", "lm_head.layer_norm")
)

_DISTILBERT = Naming(
    word_table="embeddings.word_embeddings.weight",
    modules=_modules(
        embedding_norm="embeddings.LayerNorm",
        layer__query="transformer.layer.{}.attention.q_lin",
        layer__key="transformer.layer.{}.attention.k_lin",
        layer__value="transformer.layer.{}.attention.v_lin",
        layer__attention_output="transformer.layer.{}.attention.out_lin",
        layer__attention_norm="transformer.layer.{}.sa_layer_norm",
        layer__intermediate="transformer.layer.{}.ffn.lin1",
        layer__output="transformer.layer.{}.ffn.lin2",
        layer__output_norm="transformer.layer.{}.output_layer_norm",
    ),
    tables={"position_embeddings": "embeddings.position_embeddings.weight"},
    prefixes=("distilbert.",),
    unused=r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)\..*",
    head=Head("vocab_projector", ("vocab_projector.bias",), "vocab_transform", "vocab_layer_norm"),
)

_MODERNBERT = Naming(
    word_table="embeddings.tok_embeddings.weight",
    modules={
        **_modules(
            embedding_norm="embeddings.norm",
            final_norm="final_norm",
            layer__attention_norm="layers.{}.attn_norm",
            layer__attention_output="layers.{}.attn.Wo",
            layer__mlp_norm="layers.{}.mlp_norm",
            layer__down="layers.{}.mlp.Wo",
        ),
        "layer/query": Source("layers.{}.attn.Wqkv", 0, 3),
        "layer/key": Source("layers.{}.attn.Wqkv", 1, 3),
        "layer/value": Source("layers.{}.attn.Wqkv", 2, 3),
        "layer/gate": Source("layers.{}.mlp.Wi", 0, 2),
        "layer/up": Source("layers.{}.mlp.Wi", 1, 2),
    },
    prefixes=("model.",),
    unused=r"(head|decoder|classifier)\..*",
    bare_first="attention_norm",
    head=Head("decoder", ("decoder.bias",), "head.dense", "head.norm", biased=False),
)

_LLAMA = Naming(
    word_table="embed_tokens.weight",
    modules=_modules(
        final_norm="norm",
        layer__attention_norm="layers.{}.input_layernorm",
        layer__query="layers.{}.self_attn.q_proj",
        layer__key="layers.{}.self_attn.k_proj",
        layer__value="layers.{}.self_attn.v_proj",
        layer__attention_output="layers.{}.self_attn.o_proj",
        layer__query_norm="layers.{}.self_attn.q_norm",
        layer__key_norm="layers.{}.self_attn.k_norm",
        layer__mlp_norm="layers.{}.post_attention_layernorm",
        layer__gate="layers.{}.mlp.gate_proj",
        layer__up="layers.{}.mlp.up_proj",
        layer__down="layers.{}.mlp.down_proj",
    ),
    prefixes=("model.",),
    head=Head("lm_head"),
    unused=r"lm_head\..*|score\..*|layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)

# The norm between attention and MLP belongs to the attention's output here, not to the MLP's input.
_GEMMA2 = dataclasses.replace(
    _LLAMA,
    modules=_LLAMA.modules
    | _modules(
        layer__attention_post_norm="layers.{}.post_attention_layernorm",
        layer__mlp_norm="layers.{}.pre_feedforward_layernorm",
        layer__mlp_post_norm="layers.{}.post_feedforward_layernorm",
    ),
)

_GEMMA3 = dataclasses.replace(
    _GEMMA2,
    prefixes=("language_model.model.", "model.language_model.", "language_model.", "model."),
    unused=_LLAMA.unused + r"|(vision_tower|multi_modal_projector)\..*",
)

_GGUF_LLAMA = Naming(
    word_table="token_embd.weight",
    modules=_modules(
        final_norm="output_norm",
        layer__attention_norm="blk.{}.attn_norm",
        layer__query="blk.{}.attn_q",
        layer__key="blk.{}.attn_k",
        layer__value="blk.{}.attn_v",
        layer__attention_output="blk.{}.attn_output",
        layer__query_norm="blk.{}.attn_q_norm",
        layer__key_norm="blk.{}.attn_k_norm",
        layer__attention_post_norm="blk.{}.post_attention_norm",
        layer__mlp_norm="blk.{}.ffn_norm",
        layer__mlp_post_norm="blk.{}.post_ffw_norm",
        layer__gate="blk.{}.ffn_gate",
        layer__up="blk.{}.ffn_up",
        layer__down="blk.{}.ffn_down",
    ),
    head=Head("output"),
    unused=r"output\.weight|rope_freqs\.weight",
)

_GGUF_BERT = Naming(
    word_table="token_embd.weight",
    modules=_modules(
        embedding_norm="token_embd_norm",
        layer__query="blk.{}.attn_q",
        layer__key="blk.{}.attn_k",
        layer__value="blk.{}.attn_v",
        layer__attention_output="blk.{}.attn_output",
        layer__attention_norm="blk.{}.attn_output_norm",
        layer__intermediate="blk.{}.ffn_up",
        layer__output="blk.{}.ffn_down",
        layer__output_norm="blk.{}.layer_output_norm",
    ),
    tables={"position_embeddings": "position_embd.weight", "type_embeddings": "token_types.weight"},
    head=_BERT.head,  # which GGUF has no names for
    unused=r"cls\..*",
)

NAMINGS: dict[str, Naming] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3,
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""Names by the model_type of config.json."""

GGUF_NAMINGS: dict[str, Naming] = {
    "bert": _GGUF_BERT,
    "gemma": _GGUF_LLAMA,
    "gemma2": _GGUF_LLAMA,
    "gemma3": _GGUF_LLAMA,
    "llama": _GGUF_LLAMA,
    "qwen2": _GGUF_LLAMA,
    "qwen3": _GGUF_LLAMA,
}
"""Names in GGUF by its general.architecture."""
