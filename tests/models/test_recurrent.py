"""The recurrent language family: padding, packing, decoding with a state, and torch's layers put together by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.models.recurrent import RecurrentEncoder, RecurrentLM, RecurrentTagger, Spelling

CELLS = ("rnn", "lstm", "gru")


def wide(net: nn.Module) -> nn.Module:
    """float64 and weights large enough that every gate matters."""
    torch.manual_seed(1)
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net.double().eval()


def grads(loss: Tensor, net: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))


def same(a: list[Tensor], b: list[Tensor]) -> None:
    for one, two in zip(a, b, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("tied", "embed"), [(True, 0), (True, 5), (False, 5)])
def test_language_model_equals_torch_layers(tied: bool, embed: int) -> None:
    """Outputs and gradients to 1e-9: embedding, nn.LSTM, (a bridge,) output layer."""
    net = wide(RecurrentLM(11, 6, 2, "lstm", embed, tied))
    tokens = torch.randint(11, (3, 7))
    stack = nn.LSTM(embed or 6, 6, 2, batch_first=True).double()
    stack.load_state_dict(net.recurrent.stack.state_dict())
    table = nn.Parameter(net.embed.weight.detach().clone())
    out = table if tied else nn.Parameter(net.out.weight.detach().clone())
    bridge = nn.Parameter(net.bridge.weight.detach().clone()) if tied and embed else None
    h = stack(table[tokens])[0]
    wanted = (h if bridge is None else h @ bridge.T) @ out.T + net.bias
    logits = net(tokens)
    torch.testing.assert_close(logits, wanted, atol=1e-10, rtol=1e-10)
    (a,) = torch.autograd.grad(logits.square().sum(), [net.embed.weight], retain_graph=True)
    (b,) = torch.autograd.grad(wanted.square().sum(), [table], retain_graph=True)
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    same(grads(logits.square().sum(), net.recurrent), grads(wanted.square().sum(), stack))
    assert sum(p.numel() for p in net.parameters()) == sum(
        p.numel()
        for p in [table, *stack.parameters(), net.bias, *([] if tied else [out]), *([bridge] if tied and embed else [])]
    )


@pytest.mark.parametrize("cell", CELLS)
def test_documents_packed_equal_separate(cell: str) -> None:
    net = wide(RecurrentLM(11, 6, 2, cell))
    tokens = torch.randint(11, (2, 10))
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2], [5, 5, 5, 5, 5, 9, 9, 9, 9, 9]], dtype=torch.int32)
    logits = net(tokens, documents)
    rows = [[(0, 3), (3, 7), (7, 10)], [(0, 5), (5, 10)]]
    alone = [torch.cat([net(tokens[r : r + 1, a:b]) for a, b in spans], 1) for r, spans in enumerate(rows)]
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-10, rtol=1e-10)
    same(grads(logits.square().sum(), net), grads(torch.cat(alone).square().sum(), net))


@pytest.mark.parametrize("cell", CELLS)
def test_no_look_ahead(cell: str) -> None:
    net = wide(RecurrentLM(11, 6, 2, cell))
    tokens = torch.randint(11, (1, 8))
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % 11
    before, after = net(tokens), net(other)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_equals_all_at_once(cell: str) -> None:
    """Prompts of different lengths in one batch, then token by token, rows moved and one finished in between."""
    net = wide(RecurrentLM(11, 6, 2, cell, embed=4))
    texts = [torch.randint(11, (n,)) for n in (9, 6, 8)]
    starts = torch.tensor([4, 1, 3])
    tokens = torch.zeros(3, 4, dtype=torch.int64)
    positions = torch.full((3, 4), -1)
    for row, n in enumerate(starts.tolist()):
        tokens[row, :n], positions[row, :n] = texts[row][:n], torch.arange(n)
        tokens[row, n:] = 7  # what padding holds must not matter
    cache = net.new_cache(3)
    logits = net.step(tokens, positions, cache)
    whole = [net(text[None])[0] for text in texts]
    for row, n in enumerate(starts.tolist()):
        torch.testing.assert_close(logits[row, :n], whole[row][:n], atol=1e-10, rtol=1e-10)
    assert cache.lengths.tolist() == [4, 1, 3]
    assert not cache.rewinds
    order = torch.tensor([2, 0, 1, 0])
    cache.reorder(order)
    for step in range(5):
        at = cache.lengths.clone()
        done = torch.tensor([step >= 4, False, False, step == 2])  # a finished row stands still, whatever it is given
        given = torch.stack([texts[o][min(int(p), len(texts[o]) - 1)] for o, p in zip(order, at, strict=True)])
        logits = net.step(given[:, None], torch.where(done, -1, at)[:, None], cache)
        for row, o in enumerate(order.tolist()):
            if not done[row]:
                torch.testing.assert_close(logits[row, 0], whole[o][at[row]], atol=1e-10, rtol=1e-10)
    assert cache.lengths.tolist() == [7, 9, 6, 8]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_of_a_cache_can_be_replaced(cell: str) -> None:
    net = wide(RecurrentLM(11, 6, 2, cell))
    tokens, other = torch.randint(11, (3, 4)), torch.randint(11, (1, 2))
    cache, fresh = net.new_cache(3, 9), net.new_cache(1, 9)
    net.step(tokens, torch.arange(4).expand(3, -1), cache)
    net.step(other, torch.arange(2)[None], fresh)
    cache.put(torch.tensor([1]), fresh)
    assert (cache.lengths.tolist(), cache.capacity) == ([4, 2, 4], 9)
    logits = net.step(torch.full((3, 1), 5), cache.lengths[:, None], cache)[:, 0]
    five = torch.tensor([5])
    for row, text in enumerate((tokens[0], other[0], tokens[2])):
        torch.testing.assert_close(logits[row], net(torch.cat([text, five])[None])[0, -1], atol=1e-10, rtol=1e-10)


def test_a_cache_does_not_go_back() -> None:
    net = RecurrentLM(11, 6, 1)
    cache = net.new_cache(1)
    net.step(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), cache)
    for position in (1, 3):
        with pytest.raises(ValueError, match="goes on at its length only"):
            net.step(torch.tensor([[1]]), torch.tensor([[position]]), cache)


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_encoder_in_a_batch_equals_alone(cell: str, bidirectional: bool, pool: str) -> None:
    """Logits and gradients to 1e-9 of torch's layer on each text alone, pooled by hand."""
    net = wide(RecurrentEncoder(11, 6, 2, cell, bidirectional, 4, 0.0, 3, pool))
    lengths = torch.tensor([5, 8, 2])
    tokens = torch.randint(11, (3, 9))
    logits = net(tokens, lengths)
    alone = []
    for row, n in enumerate(lengths.tolist()):
        y = net.recurrent.stack(net.embed(tokens[row : row + 1, :n]))[0]
        last = torch.cat([y[:, -1, :6], y[:, 0, 6:]], 1)
        alone.append(net.head({"max": y.amax(1), "mean": y.mean(1), "last": last}[pool]))
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-10, rtol=1e-10)
    same(grads(logits.square().sum(), net), grads(torch.cat(alone).square().sum(), net))


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
def test_an_empty_text_counts_as_zeros(pool: str) -> None:
    net = wide(RecurrentEncoder(11, 6, pool=pool))
    logits = net(torch.zeros(2, 4, dtype=torch.int64), torch.tensor([0, 3]))
    torch.testing.assert_close(logits[0], net.head.bias)


@pytest.mark.parametrize("characters", [0, 9])
def test_tagger_in_a_batch_equals_alone(characters: int) -> None:
    net = wide(RecurrentTagger(11, 6, 1, "lstm", True, 4, 0.0, 5, characters))
    lengths = torch.tensor([4, 7])
    tokens, letters = torch.randint(11, (2, 7)), torch.randint(1, 9, (2, 7, 6))
    letters *= torch.arange(6) < torch.randint(1, 7, (2, 7, 1))
    more = (letters,) if characters else ()
    scores = net(tokens, lengths, *more)
    short = [m[:1, :4, :6] for m in more]
    torch.testing.assert_close(scores[0, :4], net(tokens[:1, :4], lengths[:1], *short)[0], atol=1e-10, rtol=1e-10)
    if characters:
        with pytest.raises(ValueError, match="give characters"):
            net(tokens, lengths)


def test_spelling_equals_a_convolution_word_by_word() -> None:
    """Outputs to 1e-10; longer padding changes nothing, a word without characters gives zeros."""
    spell = wide(Spelling(9, 4, 0.0, embed=3))
    words = [[3, 1, 4], [8], [], [2, 7, 1, 8, 2]]
    letters = torch.zeros(1, 4, 8, dtype=torch.int64)
    for i, word in enumerate(words):
        letters[0, i, : len(word)] = torch.tensor(word)
    with torch.no_grad():
        spell.embed.weight[0] = 0
    got = spell(letters)[0]
    for i, word in enumerate(words):
        if not word:
            assert not got[i].any()
            continue
        x = F.pad(spell.embed(torch.tensor(word)), (0, 0, 1, 1))  # (C + 2, 3)
        windows = torch.stack([x[c : c + 3] for c in range(len(word))])  # (C, 3, 3)
        y = torch.einsum("cki,oik->co", windows, spell.conv.weight) + spell.conv.bias
        torch.testing.assert_close(got[i], y.amax(0), atol=1e-10, rtol=1e-10)


def test_learns_to_count() -> None:
    """A language model of the cycle 1 2 3 3 needs memory: the two threes are followed by different tokens."""
    torch.manual_seed(0)
    net = RecurrentLM(5, 16, 1, "gru", dropout=0.1)
    tokens = torch.tensor([1, 2, 3, 3]).repeat(6)[None]
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(tokens[:, :-1])[0], tokens[0, 1:]).backward()
        optimizer.step()
    net.eval()
    assert (net(tokens[:, :-1]).argmax(2)[0, 2:] == tokens[0, 3:]).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown pool 'sum'"):
        RecurrentEncoder(5, 4, pool="sum")  # type: ignore[arg-type]
