"""ChatTemplate: how a conversation becomes tokens. Kept in the Spec, so that training and chatting cannot differ.

Each message is <role> text </s>; the prompt of a reply ends with <assistant>, and only what the assistant says is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from engram.core.errors import DataError, did_you_mean
from engram.data.vocabulary import END, START, Vocabulary

LONGEST = 600  # characters of an answer out of the manual
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatTemplate:
    """`roles` are special tokens of the vocabulary, each written <name>."""

    roles: tuple[str, ...] = ROLES

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ChatTemplate:
        """The inverse of `to_json`."""
        return cls(tuple(values["roles"]))

    @property
    def specials(self) -> tuple[str, ...]:
        """The special tokens that the vocabulary must have."""
        return tuple(f"<{role}>" for role in self.roles)

    def encode(self, vocabulary: Vocabulary, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[bool]]:
        """(ids, trained): the whole conversation, and which tokens are the assistant's own, its </s> included.

        Raises DataError for a message without role or content, or with a role that the template does not know.
        """
        ids, trained = [START], [False]
        for message in checked(messages, self.roles):
            body = vocabulary.encode(message["content"])
            ids += [vocabulary.special(f"<{message['role']}>"), *body, END]
            mine = message["role"] == "assistant"
            trained += [False, *[mine] * (len(body) + 1)]
        return ids, trained

    def prompt(self, vocabulary: Vocabulary, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids up to where the assistant begins to speak."""
        ids, _ = self.encode(vocabulary, messages)
        return [*ids, vocabulary.special("<assistant>")]


def checked(messages: Sequence[Mapping[str, Any]], roles: Sequence[str] = ROLES) -> list[Mapping[str, Any]]:
    """The messages, or a DataError that names the first that is not one."""
    if not messages:
        raise DataError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str) or "role" not in message:
            raise DataError(f'message {number} of the conversation is not {{"role": ..., "content": "text"}}')
        role = message["role"]
        if role not in roles:
            raise DataError(
                f"message {number} has the role {role!r}{did_you_mean(str(role), roles)}; roles: {', '.join(roles)}"
            )
    return list(messages)


def manual() -> list[dict[str, Any]]:
    """Conversations made of Python's own reference manual: a question for each heading, and the text below it as the answer."""
    from pydoc_data.topics import topics

    found, seen = [], set()
    for name in sorted(topics):
        lines = topics[name].splitlines()
        marks = [
            n for n, line in enumerate(lines) if n and len(line) > 2 and set(line) <= set("*=-~^") and lines[n - 1].strip()
        ]
        for at, end in pairwise([*marks, len(lines) + 1]):
            body = "\n".join(lines[at + 1 : end - 1]).strip()
            if len(body) > 40 and body not in seen:  # topics share sections
                seen.add(body)
                ask = {"role": "user", "content": f"What does the manual say about {lines[at - 1].strip()}?"}
                found.append({"messages": [ask, {"role": "assistant", "content": body[:LONGEST]}]})
    return found
