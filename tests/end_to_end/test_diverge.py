"""diverge against continuations that numpy makes token by token from `fairgptq logits`."""
import json

import numpy as np
import pytest
from workshop import logits, refused, run, write_model, write_token_file, write_tokens

PROMPT, TOKENS = 6, 8


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A token file whose text has sequences of 4 to 20 tokens, and the prompts that follow from it."""
    folder = tmp_path_factory.mktemp("prompts")
    random = np.random.default_rng(3)
    texts = [random.integers(0, 384, length).tolist() for length in (20, 4, 6, 9, 12, 7, 15, 5, 8)]
    write_token_file(folder / "text.h5", {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": texts})
    return folder / "text.h5", [text[:PROMPT] for text in texts if len(text) >= PROMPT]


@pytest.fixture(scope="module")
def quantized(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("diverge") / "run"
    run(0, "quantize", "--model", tiny[0], "--tokens", tiny[1], "--out", out, "--bits", "3", "--group-size", "32", "--alpha", "0")
    return out


def rows_of(folder, sequences, *subject):
    """Logits of each sequence's tokens."""
    path = folder / "sequences.h5"
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [], "text": sequences})
    rows = logits(folder / "logits.h5", path, *subject)
    return np.split(rows, np.cumsum([len(sequence) for sequence in sequences])[:-1])


def continuations(folder, prompts, model):
    sequences = [list(prompt) for prompt in prompts]
    for _ in range(TOKENS):
        for sequence, rows in zip(sequences, rows_of(folder, sequences, "--model", model)):
            sequence.append(int(rows[-1].argmax()))
    return sequences


def diverge(out, prompts, model, *more, ranks=0):
    shown = run(ranks, "diverge", "--model", model, "--tokens", prompts[0], "--prompt-tokens", PROMPT, "--continuation-tokens",
                TOKENS, "--out", out, *more).stdout
    return json.loads(out.read_text()), shown


def test_figures_are_those_of_the_logits(tiny, prompts, quantized, tmp_path):
    report, shown = diverge(tmp_path / "d.json", prompts, tiny[0], "--run", quantized)
    first, share = [], []
    sequences = continuations(tmp_path, prompts[1], tiny[0])
    for sequence, rows in zip(sequences, rows_of(tmp_path, sequences, "--run", quantized)):
        wrong = rows[PROMPT - 1:-1].argmax(axis=1) != np.array(sequence[PROMPT:])
        first.append(int(wrong.argmax()) if wrong.any() else TOKENS)
        share.append(wrong.mean())
    assert report["first_divergent_token"] == first
    assert report["divergent_share"] == pytest.approx(share)
    assert report["fdt_mean"] == pytest.approx(np.mean(first)) and report["fdt_median"] == np.median(first)
    assert report["sdt_mean"] == pytest.approx(np.mean(share)) and 0 < report["sdt_mean"] < 1
    assert (report["format"], report["version"], report["prompts"], report["continuation_tokens"]) == (
        "fairgptq-divergence", 1, len(prompts[1]), TOKENS)
    assert report["model"] == str(tiny[0]) and report["other"] == str(quantized) and "by_module" not in report
    assert f"{len(prompts[1])} prompts of {PROMPT} tokens" in shown


def test_a_model_does_not_diverge_from_itself(tiny, prompts, tmp_path):
    report, _ = diverge(tmp_path / "d.json", prompts, tiny[0], "--other", tiny[0])
    assert set(report["first_divergent_token"]) == {TOKENS} and set(report["divergent_share"]) == {0}


def test_another_model_of_the_same_vocabulary(tiny, prompts, tmp_path):
    other = write_model(tmp_path / "other", layers=2, hidden=32, seed=9)
    report, _ = diverge(tmp_path / "d.json", prompts, tiny[0], "--other", other, "--prompts", "3")
    assert report["prompts"] == 3 and report["sdt_mean"] > 0.9  # nothing in common but chance


def test_ranks_change_nothing(tiny, prompts, quantized, tmp_path):
    expected, _ = diverge(tmp_path / "0.json", prompts, tiny[0], "--run", quantized, "--by-module")
    for ranks in (1, 2, 4, 9):  # 7 prompts
        report, _ = diverge(tmp_path / f"{ranks}.json", prompts, tiny[0], "--run", quantized, "--by-module", ranks=ranks)
        assert report == expected


def test_by_module(tiny, prompts, quantized, tmp_path):
    kinds, shown = diverge(tmp_path / "kinds.json", prompts, tiny[0], "--run", quantized, "--by-module")
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
             "mlp.down_proj"]
    assert list(kinds["by_module"]) == names
    modules, _ = diverge(tmp_path / "modules.json", prompts, tiny[0], "--run", quantized, "--by-module=modules")
    assert len(modules["by_module"]) == 7 * 3 and "model.layers.2.mlp.down_proj" in modules["by_module"]
    # Each alone moves less than all of them together, on average.
    assert np.mean([part["sdt_mean"] for part in kinds["by_module"].values()]) < kinds["sdt_mean"]
    assert np.mean([part["sdt_mean"] for part in modules["by_module"].values()]) <= np.mean(
        [part["sdt_mean"] for part in kinds["by_module"].values()])
    part = tmp_path / "part"
    run(0, "quantize", "--model", tiny[0], "--tokens", tiny[1], "--out", part, "--group-size", "32", "--ignore", "k_proj,*.layers.2.*")
    modules, _ = diverge(tmp_path / "part.json", prompts, tiny[0], "--run", part, "--by-module=modules")
    assert len(modules["by_module"]) == 6 * 2 and "model.layers.1.self_attn.k_proj" not in modules["by_module"]
    # The table begins with what diverges first.
    order = [line.split()[0] for line in shown.splitlines() if line.split()[:1] and line.split()[0] in names]
    assert [kinds["by_module"][name]["fdt_mean"] for name in order] == sorted(part["fdt_mean"] for part in kinds["by_module"].values())


def test_what_cannot_be_is_refused(tiny, prompts, quantized, tmp_path):
    basic = ("diverge", "--model", tiny[0], "--tokens", prompts[0])
    assert "one of --run RUN and --other DIR" in refused(*basic)
    assert "one of --run RUN and --other DIR" in refused(*basic, "--run", quantized, "--other", tiny[0])
    assert "--model is missing" in refused("diverge", "--run", quantized, "--tokens", prompts[0])
    assert "--by-module takes a run's codes" in refused(*basic, "--other", tiny[0], "--by-module")
    assert "--by-module must be one of" in refused(*basic, "--run", quantized, "--by-module=layers")
    for option in ("--prompts", "--prompt-tokens", "--continuation-tokens"):
        assert f"{option} must be at least 1" in refused(*basic, "--run", quantized, option, "0")
    assert "at least 21 tokens" in refused(*basic, "--run", quantized, "--prompt-tokens", "21")
    assert "at most 1024 tokens" in refused(*basic, "--run", quantized, "--continuation-tokens", "1020")
    assert "no text" in refused("diverge", "--model", tiny[0], "--run", quantized, "--tokens", write_tokens(tmp_path / "t.h5", texts=0))
    wide = write_model(tmp_path / "wide", vocabulary=400)
    assert "vocabulary of 400" in refused(*basic, "--other", wide)
    other = write_model(tmp_path / "other", seed=5, hidden=32)
    assert f"--model {other} is not the model" in refused("diverge", "--model", other, "--run", quantized, "--tokens", prompts[0])
    basic = (*basic, "--prompt-tokens", "6")
    assert "/nowhere" in refused(*basic, "--run", quantized, "--out", "/nowhere/d.json", ranks=2)
    assert str(tmp_path) in refused(*basic, "--run", quantized, "--out", tmp_path)
