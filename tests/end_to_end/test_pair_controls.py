"""quantize --pairs: the controls of what the bias term learns from."""
import json

import h5py
import numpy as np
import pytest
from workshop import quantized, read_run, refused, run, seal, write_token_file


def pairs(seed=2, count=40):
    random = np.random.default_rng(seed)

    def sentences():
        return [random.integers(0, 384, random.integers(5, 15)).tolist() for _ in range(count)]
    return {"stereotype": sentences(), "anti_stereotype": sentences(), "unrelated": sentences()}


def write(path, stereotype, anti_stereotype, unrelated=None):
    write_token_file(path, {"tokenizer_sha256": "0" * 64, "vocab_size": 384, "sources": [],
                            "pairs": {"stereotype": stereotype, "anti_stereotype": anti_stereotype, "category": [""] * len(stereotype)}})
    if unrelated:
        with h5py.File(path, "r+") as file:
            if "pairs/unrelated" in file:
                del file["pairs/unrelated"]
            group = file.create_group("pairs/unrelated")
            group["token_ids"] = np.concatenate(unrelated).astype(np.int32)
            group["offsets"] = np.cumsum([0] + [len(one) for one in unrelated]).astype(np.int64)
        seal(path)
    return path


def make(model, tokens, out, *more):
    run(0, "quantize", "--model", model, "--tokens", tokens, "--out", out, "--group-size", "32", "--max-layers", "1", *more)
    return json.loads((out / "run.json").read_text())["settings"], quantized(read_run(out))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write(tmp_path_factory.mktemp("controls") / "tokens.h5", **pairs())


def test_as_given_is_the_default_and_leaves_no_trace(tiny, given, tmp_path):
    settings, values = make(tiny[0], given, tmp_path / "default")
    assert "pairs" not in settings["quantization"]
    assert make(tiny[0], given, tmp_path / "as_given", "--pairs", "as-given") == (settings, values)
    without = write(tmp_path / "without.h5", **{**pairs(), "unrelated": None})
    again, values_again = make(tiny[0], without, tmp_path / "without")
    assert values_again == values and again["calibration"]["digest"] == settings["calibration"]["digest"]


def test_shuffled_pairs_are_another_run(tiny, given, tmp_path):
    settings, values = make(tiny[0], given, tmp_path / "default")
    shuffled, shuffled_values = make(tiny[0], given, tmp_path / "shuffled", "--pairs", "shuffled")
    assert shuffled["quantization"].pop("pairs") == "shuffled" and shuffled["quantization"] == settings["quantization"]
    assert shuffled["calibration"] == settings["calibration"] and shuffled_values != values
    # The sentences are the same: so is H, and with it GPTQ.
    gptq = [make(tiny[0], given, tmp_path / f"gptq{pairing}", "--alpha", "0", "--pairs", pairing)[1] for pairing in ("as-given", "shuffled")]
    same = sum(np.sum(np.frombuffer(gptq[0][name], np.uint8) == np.frombuffer(gptq[1][name], np.uint8)) for name in gptq[0])
    assert same / sum(len(value) for value in gptq[0].values()) > 0.98  # but for float sums in another order
    assert "quantization.pairs" in refused("quantize", "--model", tiny[0], "--tokens", given, "--out", tmp_path / "shuffled",
                                           "--group-size", "32", "--max-layers", "1", "--resume")


def test_unrelated_sentences_take_the_place_of_anti_stereotypical_ones(tiny, given, tmp_path):
    contents = pairs()
    written = write(tmp_path / "written.h5", contents["stereotype"], contents["unrelated"])
    _, expected = make(tiny[0], written, tmp_path / "expected")
    settings, values = make(tiny[0], given, tmp_path / "unrelated", "--pairs", "unrelated")
    assert settings["quantization"]["pairs"] == "unrelated" and values == expected
    # Other unrelated sentences are another run, and so is one without --pairs.
    contents["unrelated"][0][0] = (contents["unrelated"][0][0] + 1) % 384
    changed = write(tmp_path / "changed.h5", **contents)
    resume = ("--out", tmp_path / "unrelated", "--group-size", "32", "--max-layers", "1", "--resume")
    assert "quantization.unrelated_digest" in refused("quantize", "--model", tiny[0], "--tokens", changed, *resume, "--pairs", "unrelated")
    assert "quantization.pairs" in refused("quantize", "--model", tiny[0], "--tokens", given, *resume)
    assert "/pairs/unrelated" in refused("quantize", "--model", tiny[0], "--tokens", written, "--out", tmp_path / "no", "--group-size",
                                         "32", "--pairs", "unrelated")
    assert "--pairs must be one of" in refused("quantize", "--model", tiny[0], "--tokens", given, "--out", tmp_path / "no", "--pairs", "mixed")
    assert not (tmp_path / "no").exists()


def test_context_needs_sentences_that_end_alike(tiny, given, tmp_path):
    words = ("quantize", "--model", tiny[0], "--out", tmp_path / "run", "--group-size", "32", "--pair-alignment", "context")
    ends = write(tmp_path / "ends.h5", [[1, 2, 3, 4]] * 3, [[1, 2, 3, 5]] * 3)
    assert "no pair of" in refused(*words, "--tokens", ends)
    assert "--pairs unrelated" in refused(*words, "--tokens", given, "--pairs", "shuffled")
    assert not (tmp_path / "run").exists()
    run(0, *words, "--tokens", ends, "--alpha", "0")  # GPTQ asks for no pairs
