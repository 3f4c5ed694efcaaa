"""Sizes of known models, for what is made or predicted in their shape."""
from typing import NamedTuple


class Shape(NamedTuple):
    hidden: int
    intermediate: int  # of one expert, where there are several
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool = False  # the head is the embedding
    experts: int = 0
    experts_per_token: int = 0
    head_size: int = 0  # where it is not hidden / heads
    shared: int = 0  # experts that every token reaches, in GLM's form; else Qwen3's
    dense_layers: int = 0  # the first ones, without experts
    dense_intermediate: int = 0
    normed: bool = True  # norms of query and key beside experts
    key_value_rank: int = 0  # of latents, in DeepSeek's form, whose heads have 64 elements that turn and values of 128
    query_rank: int = 0
    linear_heads: tuple = ()  # of keys and of values, 128 elements each, in three of four layers, in Qwen3.5's form

    @property
    def head_dim(self):
        return self.head_size or self.hidden // self.heads

    @property
    def key_value_width(self):
        return self.key_value_heads * self.head_dim


SHAPES = {"smollm2-135m": Shape(576, 1536, 30, 9, 3, 49152, True), "llama-7b": Shape(4096, 11008, 32, 32, 32, 32000),
          "8b": Shape(4096, 14336, 32, 32, 8, 128256), "13b": Shape(5120, 13824, 40, 40, 40, 32000),
          "70b": Shape(8192, 28672, 80, 64, 8, 128256), "405b": Shape(16384, 53248, 126, 128, 8, 128256),
          "1t": Shape(24576, 81920, 128, 192, 16, 128256)}
# Mixtures of experts: Qwen3's, GLM-4.5-Air, GLM-4.5 to 4.7, DeepSeek-V2-Lite, DeepSeek-V3.
MIXTURES = {"30b-a3b": Shape(2048, 768, 48, 32, 4, 151936, experts=128, experts_per_token=8, head_size=128),
            "235b-a22b": Shape(4096, 1536, 94, 64, 4, 151936, experts=128, experts_per_token=8, head_size=128),
            "106b-a12b": Shape(4096, 1408, 46, 96, 8, 151552, experts=128, experts_per_token=8, head_size=128, shared=1, dense_layers=1,
                               dense_intermediate=10944, normed=False),
            "355b-a32b": Shape(5120, 1536, 92, 96, 8, 151552, experts=160, experts_per_token=8, head_size=128, shared=1, dense_layers=3,
                               dense_intermediate=12288),
            "16b-a2b": Shape(2048, 1408, 27, 16, 16, 102400, experts=64, experts_per_token=6, head_size=192, shared=2, dense_layers=1,
                             dense_intermediate=10944, normed=False, key_value_rank=512),
            "671b-a37b": Shape(7168, 2048, 61, 128, 128, 129280, experts=256, experts_per_token=8, head_size=192, shared=1, dense_layers=3,
                               dense_intermediate=18432, normed=False, key_value_rank=512, query_rank=1536)}
# Linear attention: Qwen3.5's.
HYBRIDS = {"0.8b": Shape(1024, 3584, 24, 8, 2, 248320, True, head_size=256, linear_heads=(16, 16)),
           "27b": Shape(5120, 17408, 64, 24, 4, 248320, head_size=256, linear_heads=(16, 48))}
