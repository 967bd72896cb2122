"""DialogSum's dialogues as conversations."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.talks import conversation, write_talks


def test_speakers_become_roles_and_split_words_are_joined() -> None:
    found = conversation("#Person1#: Hi .\n#Person2#: I ' Ve time .\n#Person2#: It's late.\n#Person1#: Don ' t go.")
    assert found == [
        {"role": "user", "content": "Hi ."},
        {"role": "assistant", "content": "I've time . It's late."},
        {"role": "user", "content": "Don't go."},
    ]


def test_no_conversation_for_a_third_speaker_or_without_an_answer() -> None:
    assert conversation("#Person1#: Hi.\n#Person2#: Ho.\n#Person3#: Hu.") == []
    assert conversation("#Person1#: Hi.") == []


def test_what_was_trained_on_is_not_in_the_test_file(tmp_path: Path) -> None:
    folder = tmp_path / "dialogsum_dev_test"
    folder.mkdir()
    one, two = ({"dialogue": f"#Person1#: {w}?\n#Person2#: {w}."} for w in ("Tea", "Rice"))
    for part, rows in (("dev", [one, one]), ("test", [one, two])):
        (folder / f"dialogsum.{part}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert write_talks(tmp_path, tmp_path / "out") == {"train": 1, "test": 1}
    assert "Rice" in (tmp_path / "out/test.jsonl").read_text("utf-8")
