"""Questions about paragraphs in SQuAD's JSON (Rajpurkar et al. 2016, 2018): articles, paragraphs, questions, answer spans."""

from __future__ import annotations

from typing import Any

from engram.core.errors import DataError
from engram.data.split import split_rows
from engram.data.text_rows import Row

_FORM = '{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}'


def squad_rows(data: Any, name: str) -> list[Row]:
    """One row per question; `answers` is empty where the question has none (version 2.0).

    Raises DataError with the question's id when an answer is not at its place in the paragraph, and when the JSON is another.
    """
    rows: list[Row] = []
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for question in paragraph["qas"]:
                    rows.append(
                        {
                            "id": str(question["id"]),
                            "title": str(article.get("title", "")),
                            "context": context,
                            "question": question["question"],
                            "answers": [{"start": a["answer_start"], "text": a["text"]} for a in question["answers"]],
                        }
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name} is not in SQuAD's form ({error} is missing or of another type); it is {_FORM}") from None
    check_answers(rows, name)
    return rows


def check_answers(rows: list[Row], name: str) -> None:
    """Raises DataError for the first answer that does not stand at its place."""
    for row in rows:
        for answer in row["answers"]:
            start, text = answer["start"], answer["text"]
            if not isinstance(start, int) or not text or row["context"][start : start + len(text)] != text:
                raise DataError(
                    f"{name}: the answer {text[:40]!r} of question {row['id']} does not stand at character {start} of its "
                    "paragraph; mend answer_start (it counts characters, not bytes)"
                )


def by_article(rows: list[Row], fractions: tuple[float, float, float]) -> dict[str, list[Row]]:
    """Questions by split, all of an article in one; a pure function of the rows (seed 0)."""
    titles = sorted({r["title"] for r in rows})
    numbers = split_rows(len(titles), None, fractions, 0)
    where = {titles[i]: split for split, chosen in numbers.items() for i in chosen}
    return {s: [r for r in rows if where[r["title"]] == s] for s in numbers if any(w == s for w in where.values())}
