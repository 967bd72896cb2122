"""The predictor from text to text: order, batches, figures against sacrebleu, what is said of bad input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError, DataError
from engram.data.pair_spec import PairSpec
from engram.data.vocabulary import Vocabulary
from engram.inference import translate
from engram.inference.translate import Translator, _groups
from engram.models.transformer import Transformer

WORDS = [f"w{i}" for i in range(20)]


@pytest.fixture
def made() -> Translator:
    vocabulary = Vocabulary("word", WORDS)
    spec = PairSpec(vocab=vocabulary.to_json(), context=12, target_context=12)
    torch.manual_seed(0)
    net = Transformer(vocabulary.size, vocabulary.size, 1, 2, 16, 16, context=16)
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return Translator(net, spec, beams=3)


def texts(n: int) -> list[str]:
    draw = torch.Generator().manual_seed(3)
    return [" ".join(WORDS[i] for i in torch.randint(20, (1 + k % 9,), generator=draw).tolist()) for k in range(n)]


@pytest.mark.parametrize("beams", [1, 3])
def test_many_equal_one_by_one_in_the_order_given(made: Translator, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "TOKENS", 60)  # several groups of several rows
    together = made(input=texts(17), beams=beams)["text"]
    assert together == [made(input=one, beams=beams)["text"][0] for one in texts(17)]
    assert len(set(together)) > 5


def test_one_beam_is_greedy_and_more_beams_score_better(made: Translator) -> None:
    one, five = (made.search(texts(20), beams=b, penalty=0.0) for b in (1, 5))
    assert all(len(h) == 1 for h in one)
    assert sum(h[0].score for h in five) > sum(h[0].score for h in one)
    for hypotheses in five:
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_what_may_be_given(made: Translator, tmp_path: object) -> None:
    wanted = made(input=["w1 w2", "w3"])["text"]
    assert made(input=[{"source": "w1 w2", "target": "w5"}, "w3"])["text"] == wanted
    for bad in ("", ["w1", " "], [], object(), {"other": "w1"}):
        with pytest.raises(DataError):
            made(input=bad)
    for beams, penalty, most in ((0, 0.0, 0), (2, -1.0, 0), (2, 0.0, -1)):
        with pytest.raises(ConfigError):
            made(input="w1", beams=beams, penalty=penalty, most=most)


def test_limits_and_specials(made: Translator) -> None:
    for hypotheses in made.search(texts(9), beams=4, most=3):
        assert all(len(h.ids) <= 2 and min(h.ids, default=6) >= 6 for h in hypotheses)
    long = " ".join(WORDS[:15])
    assert made(input=long) == made(input=" ".join(WORDS[:11]))
    assert isinstance(made.spec, PairSpec)
    assert made.spec.too_long(long) == 4


def rows(n: int) -> list[dict[str, object]]:
    return [{"source": s, "target": t} for s, t in zip(texts(n), reversed(texts(n)), strict=True)]


def figures(made: Translator, given: list[dict[str, object]], size: int = 4) -> dict[str, float]:
    assert isinstance(made.spec, PairSpec)
    chunks = [given[i : i + size] for i in range(0, len(given), size)]
    found = made.scores((made.spec.encode_pairs(c) for c in chunks), iter(chunks))
    assert found is not None
    assert len(found.parts) == len(given)
    total = found.parts.sum(0, keepdim=True)
    return {name: float(figure.statistic(total)[0]) for name, figure in found.figures.items()}


def test_figures_are_those_of_sacrebleu_and_of_the_loss(made: Translator) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    assert isinstance(made.spec, PairSpec)
    given = rows(13)
    found = figures(made, given)
    written, known = made(input=given)["text"], [[str(r["target"]) for r in given]]
    assert next(iter(found)) == "bleu"
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, known).score, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, known).score, abs=1e-9)
    batch = made.spec.encode_pairs(given)
    logits = made.model(batch["source"], batch["source_lengths"], batch["target"][:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"][:, 1:].flatten(), ignore_index=0)
    assert found["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)


def test_several_references_count_the_best(made: Translator) -> None:
    given = rows(6)
    written = made(input=given)["text"]
    best = [r | {"references": [r["target"], w]} for r, w in zip(given, written, strict=True)]
    assert figures(made, best)["chrf"] == pytest.approx(100.0)


def test_no_rows_have_no_figures(made: Translator) -> None:
    assert made.scores([], []) is None


def test_outputs_need_targets(made: Translator) -> None:
    assert isinstance(made.spec, PairSpec)
    whole: Batch = made.spec.encode_pairs(rows(5))
    assert made.outputs({n: whole[n] for n in ("source", "source_lengths")}) == {}
    found = made.outputs(whole)
    assert found["items"].tolist() == (whole["target_lengths"] - 1).tolist()
    for r in range(5):
        alone = made.outputs(made.spec.encode_pairs(rows(5)[r : r + 1]))
        torch.testing.assert_close(alone["nll"][0], found["nll"][r], rtol=1e-5, atol=1e-4)


def test_bf16_is_a_copy(made: Translator) -> None:
    before = {n: p.clone() for n, p in made.model.named_parameters()}
    model = made.model
    made.tune(bf16=True, channels_last=False)
    assert made.model is not model
    assert next(made.model.parameters()).dtype == torch.bfloat16
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert len(made(input=texts(5))["text"]) == 5


def test_groups_hold_every_row_once_and_stay_small() -> None:
    lengths = [3, 50, 7, 7, 1, 20, 300]
    groups = _groups(lengths, 60)
    assert sorted(r for g in groups for r in g) == list(range(7))
    assert all(len(g) == 1 or len(g) * max(lengths[r] for r in g) <= 60 for g in groups)
    assert max(map(len, groups)) > 1
