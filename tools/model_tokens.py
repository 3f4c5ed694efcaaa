"""A model's tokenizer, and how sentences and prompts with continuations become token ids."""
import hashlib
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from support import InvalidInput, read_json_object, read_text, text_config


@dataclass
class Model:
    """What a token file needs to know of a model."""

    tokenizer: Tokenizer
    tokenizer_sha256: str
    start: list  # the start token's id, or nothing
    end: list  # the end token's id, or nothing
    prefix: list  # what the tokenizer itself puts before a text: the start token or nothing, as tokenizer.json says
    vocab_size: int
    max_positions: int

    def tokens_of(self, text):
        return self.known(self.tokenizer.encode(text, add_special_tokens=False))

    def all_tokens_of(self, texts):
        """[token ids] of many texts: in parallel, and much faster than one by one."""
        return [self.known(encoded) for encoded in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def known(self, encoded):
        """Token ids of what was encoded, if the model has an embedding for each: added tokens may lie beyond them."""
        ids = encoded.ids
        largest = max(ids, default=-1)
        if largest >= self.vocab_size:
            token = self.tokenizer.id_to_token(largest)
            raise InvalidInput(f"a text holds {token!r}, token {largest} of the tokenizer, and the model knows {self.vocab_size}")
        return ids

    def sentence(self, text, where):
        """Token ids of a sentence, start token first."""
        return self.checked(self.start + self.tokens_of(text), where)

    def checked(self, ids, where):
        """The token ids of a sentence, if a model can score them."""
        if len(ids) < 2:
            raise InvalidInput(f"{where}: a sentence of {len(ids)} tokens has nothing to score; at least 2 are needed")
        if len(ids) > self.max_positions:
            raise InvalidInput(f"{where}: a sentence has {len(ids)} tokens, and the model takes {self.max_positions}")
        return ids

    def continuations(self, pairs, first):
        """Token ids of contexts with a continuation each, and where the continuation begins.

        As lm-evaluation-harness tokenizes: blanks that end a context go to its continuation; the two are tokenized as one text,
        and of that all tokens after as many as the context alone has are the continuation, the context's own standing before
        them. What is too long loses its beginning; the last token needs no position, since nothing is predicted after it.

        @param pairs  [(context, continuation, where)]
        @param first  token ids to put before all
        @returns [(token ids, index of the first token that is scored)]
        """
        split = []
        for context, continuation, _ in pairs:
            kept = context.rstrip()
            split.append((kept, context[len(kept):] + continuation))
        contexts = self.all_tokens_of(context for context, _ in split)
        wholes = self.all_tokens_of(context + continuation for context, continuation in split)
        found = []
        for (_, _, where), context, whole in zip(pairs, contexts, wholes):
            before, scored = first + context, whole[len(context):]
            if not before or not scored:
                raise InvalidInput(f"{where}: the prompt or its continuation has no tokens of its own")
            if len(scored) > self.max_positions:
                raise InvalidInput(f"{where}: a continuation has {len(scored)} tokens, and the model takes {self.max_positions}")
            before = before[-(self.max_positions + 1 - len(scored)):]
            found.append((before + scored, len(before)))
        return found


def read_model(folder):
    """Tokenizer and sizes from a Hugging Face model folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"--model {folder} is not a folder")
    whole = read_json_object(folder / "config.json")
    config = text_config(whole)
    both = {**config, **{name: value for name, value in whole.items() if value is not None}}
    sizes = {}
    for name in ("vocab_size", "max_position_embeddings"):
        sizes[name] = config.get(name)
        if not isinstance(sizes[name], int) or sizes[name] <= 0:
            raise InvalidInput(f"{folder / 'config.json'} lacks a positive whole number '{name}'")
    path = folder / "tokenizer.json"
    if not path.exists() and (folder / "tekken.json").exists():
        raise InvalidInput(f"{path} does not exist, and tekken.json is not read: a tokenizer.json with the same ids is needed")
    text = read_text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise InvalidInput(f"{path} is not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Models without pictures may come with the tokenizer of those with pictures, whose added tokens they do not know.
    largest = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)
    if largest >= sizes["vocab_size"]:
        raise InvalidInput(f"{path} has the token id {largest}, beyond config.json's vocab_size {sizes['vocab_size']}: "
                           "tokenizer and model do not belong together")
    return Model(tokenizer, sha256_of(path), special_token("bos_token", folder, both, tokenizer),
                 special_token("eos_token", folder, both, tokenizer), own_prefix(tokenizer), sizes["vocab_size"],
                 min(sizes["max_position_embeddings"], original_context(config)))


def original_context(config):
    """How long sequences may be for longrope's short factors, and for queries that do not grow with their position (Ministral 3): all
    that fairgptq computes with."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    limited = [one for one in (rope, *(rope.values() if isinstance(rope, dict) else ()))
               if isinstance(one, dict) and (one.get("rope_type", one.get("type")) in ("longrope", "su") or one.get("llama_4_scaling_beta"))]
    lengths = [config.get("original_max_position_embeddings") or one.get("original_max_position_embeddings") for one in limited]
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=float("inf"))


def special_token(role, folder, config, tokenizer):
    """A special token's id as a list, empty for a model without one: tokenizer_config.json says, or else config.json.

    @param role  bos_token or eos_token
    """
    path = folder / "tokenizer_config.json"
    if not path.exists():
        token = config.get(f"{role}_id")
        if isinstance(token, list):  # several end tokens: any of them ends a text
            token = token[0] if token else None
        return [] if token is None else [token]
    token = read_json_object(path).get(role)
    if isinstance(token, dict):  # an AddedToken written out
        token = token.get("content")
    if token is None:
        return []
    index = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if index is None:
        raise InvalidInput(f"{path}: the {role} {token!r} is not in tokenizer.json's vocabulary")
    return [index]


def own_prefix(tokenizer):
    """The special tokens that a tokenizer puts before a text by itself."""
    encoded = tokenizer.encode("a", add_special_tokens=True)
    count = next((place for place, special in enumerate(encoded.special_tokens_mask) if not special), 0)
    return encoded.ids[:count]


def sha256_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
