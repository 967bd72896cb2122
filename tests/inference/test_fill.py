"""Filling gaps: every gap gets a text, rows do not depend on each other, and a model that knows the answers writes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.data.span_spec import SpanSpec, sentinel_names
from engram.data.vocabulary import END, START, Vocabulary
from engram.inference.fill import GapFiller
from engram.models.t5 import T5

WORDS = Vocabulary.train("word", ["the roof of house is red old green door"], 100, extra=sentinel_names(4))
SPEC = SpanSpec(vocab=WORDS.to_json(), context=32, target_context=32)


def network(vocab: int = WORDS.size, seed: int = 0) -> T5:
    torch.manual_seed(seed)
    return T5(vocab, 2, 2, 16, 8, 32, dropout=0.0).eval()


class Script(nn.Module):
    """Writes a fixed text whatever it reads, as a State that only counts."""

    def __init__(self, ids: list[int]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.ids, self.given = ids, []  # type: ignore[var-annotated]

    def start(self, source: Tensor, lengths: Tensor) -> Script:
        return self

    def select(self, index: Tensor) -> Script:
        return self

    def step(self, tokens: Tensor, state: Script) -> tuple[Tensor, Script]:
        self.given.append(tokens.tolist())
        logits = torch.zeros(len(tokens), WORDS.size)
        logits[:, self.ids[len(self.given) - 1]] = 9.0
        return logits, self


def ids(*pieces: str) -> list[int]:
    return [WORDS.special(p) if p.startswith("<") else WORDS.encode(p)[0] for p in pieces]


def test_gaps_end_at_sentinels_and_are_put_into_the_text() -> None:
    model = Script(ids("<x0>", "red", "roof", "<x1>", "is", "<x2>"))
    out = GapFiller(model, SPEC)(input="the <x0> of the house <x1> red")
    assert out["gaps"] == [["red roof", "is"]]
    assert out["text"] == ["the red roof of the house is red"]
    assert model.given == [[t] for t in [START, *ids("<x0>", "red", "roof", "<x1>", "is")]]  # sentinels are given to it


def test_wrong_sentinels_and_an_early_end_do_not_lose_a_gap() -> None:
    model = Script(ids("<x3>", "red", "</s>", "is", "</s>"))
    out = GapFiller(model, SPEC)(input="the <x0> of the house <x1> red")
    assert out["gaps"] == [["red", "is"]]
    assert model.given[1:4] == [[t] for t in ids("<x0>", "red", "<x1>")]


def test_a_gap_is_never_empty_nor_longer_than_asked() -> None:
    found = GapFiller(network(), SPEC)(input=["the <x0> house", "<x0> red <x1> old <x2> <x3>"], most=3)["gaps"]
    assert [len(gaps) for gaps in found] == [1, 4]
    assert all(1 <= len(gap.split()) <= 3 for gaps in found for gap in gaps)


def test_batched_equals_single_and_the_whole_forward() -> None:
    model = network(seed=3)
    filler = GapFiller(model, SPEC)
    texts = ["the <x0> of the house <x1> red", "<x0> door", "old", "the green <x0> is <x1> and <x2> of the old house"]
    together = filler(input=texts, most=4)
    for number, text in enumerate(texts):
        alone = filler(input=text, most=4)
        assert {name: [values[number]] for name, values in together.items()} == alone
    # without a cache: read the whole target anew for every token
    source = SPEC.encode(texts[0])["source"]
    target, gaps, ends = [START], [], [END, *SPEC.sentinels]
    while True:
        with torch.no_grad():
            logits = model(source, None, torch.tensor([target]))[0, -1]
        logits[[i for i in range(len(WORDS.specials)) if i not in ends]] = -torch.inf
        if gaps and not gaps[-1]:
            logits[ends] = -torch.inf
        best = int(logits.argmax())
        if not gaps or best in ends or len(gaps[-1]) == 4:
            if len(gaps) == 2:
                break
            best = SPEC.sentinels[len(gaps)]
            gaps.append([])
        else:
            gaps[-1].append(best)
        target.append(best)
    assert together["gaps"][0] == [WORDS.decode(gap) for gap in gaps]


def test_scores() -> None:
    rows = [{"source": "the <x0> of the house <x1> red", "target": "<x0> roof <x1> is"}]
    source = SPEC.encode(rows)
    target = torch.tensor([SPEC.target_ids(rows[0]["target"])])
    batch: Batch = source | {"target": target, "target_lengths": torch.tensor([target.shape[1]])}
    filler = GapFiller(network(), SPEC)
    scores = filler.scores([batch], [rows])
    assert scores is not None
    assert scores.parts[0, 1] == 5  # <x0> roof <x1> is </s>
    assert scores.parts[0, 3] == 2
    with torch.no_grad():
        logits = network()(batch["source"], batch["source_lengths"], target[:, :-1])
    expected = nn.functional.cross_entropy(logits[0], target[0, 1:]).exp()
    value = scores.figures["perplexity"].statistic(scores.parts.sum(0, keepdim=True))
    torch.testing.assert_close(value[0].float(), expected, rtol=1e-5, atol=1e-5)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="most"):
        GapFiller(network(), SPEC)(input="a <x0>", most=-1)
