"""Where the built-in texts come from: licence, upstream address pinned by commit, and the sha256 of every file's content.

Licences are quoted as their repositories state them; "not stated" where they do not.
"""

from __future__ import annotations

from typing import NamedTuple

_GITHUB = "https://raw.githubusercontent.com"


class Pins(NamedTuple):
    """A built-in set of texts; `files` as name -> (address, sha256 of the content)."""

    description: str
    rows: int  # over all splits
    licence: str
    files: dict[str, tuple[str, str]]
    folder: str = ""  # another name that its folder in ENGRAM_DATA may have
    own: str = ""  # what a user has to put there, when there is nothing to download


def _at(address: str, **sha256: str) -> dict[str, tuple[str, str]]:
    return {name: (f"{address}/{name.rpartition('/')[2]}", sha) for name, sha in sha256.items()}


_MULTI30K = {
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
    "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
    "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
    "test_2017_flickr.fr": "6f3764e31dac41e9455e612958bcfd4e877c5e15cd66df2c2b2be6d9bd83e5b6",
    "test_2017_mscoco.de": "58277df3c75f92f7145a11b910b553d1cf82c439249d4dc237c899609eafac22",
    "test_2017_mscoco.en": "43051fdfa86fd5395182e718a94ca67b1b227b9f7c79596ff0f6b813216981d2",
    "test_2017_mscoco.fr": "39cde3f43f32b0a6bf29ce4917a46329ff32e53070c2fac87506695a740ae0a0",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
}

PINS: dict[str, Pins] = {
    "pydoc": Pins("Python's own reference manual, bundled with Python, a document per topic", 79, "PSF-2.0", {}),
    "pydoc_topics": Pins("paragraphs of Python's reference manual, labelled by their chapter", 945, "PSF-2.0", {}),
    "pydoc_code": Pins("paragraphs of Python's reference manual, their code tagged", 364, "PSF-2.0", {}),
    "numbers": Pins("the numbers 0 to 999 in English and German words, made", 1000, "Apache-2.0 (made by Engram)", {}),
    "tinyshakespeare": Pins(
        "40,000 lines of Shakespeare, 1,115,394 characters",
        1,
        "not stated (the text is in the public domain)",
        _at(
            f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare",
            **{"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        ),
    ),
    "wikitext2": Pins(
        "Wikipedia articles, words; validation and test articles, train from your own copy",
        120,
        "not stated",
        _at(
            f"{_GITHUB}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model/data/wikitext-2",
            **{
                "valid.txt": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                "test.txt": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            },
        ),
        "wikitext2_valid_test",
    ),
    "sst2": Pins(
        "sentences of film reviews, negative or positive",
        9613,
        "not stated",
        _at(
            f"{_GITHUB}/clairett/pytorch-sentiment-classification/457ffd83de90a9d6d472d8ffc31bbffe40a8b236/data/SST2",
            **{
                "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
                "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
                "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
            },
        ),
    ),
    "imdb": Pins(
        "film reviews, negative or positive, from your own copy",
        50000,
        "not stated",
        {},
        own="the folder aclImdb with train/pos/*.txt, train/neg/*.txt and test/ (or its contents)",
    ),
    "wnut17": Pins(
        "sentences with rare entities tagged, 6 kinds",
        5690,
        "CC BY 4.0",
        _at(
            f"{_GITHUB}/leondz/emerging_entities_17/e52a2d2a71ac1a051ca2d532eef28653c5c02603",
            **{
                "wnut17train.conll": "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
                "emerging.dev.conll": "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
                "emerging.test.annotated": "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0",
            },
        ),
    ),
    "conll2003": Pins(
        "news sentences with entities tagged, 4 kinds, from your own copy",
        20744,
        "not stated",
        {},
        own="train.txt, valid.txt and test.txt with a word and its tags on each line",
    ),
    "multi30k": Pins(
        "descriptions of pictures, English to German; multi30k:en-fr and other directions",
        31014,
        "not stated (non-commercial research, Flickr terms)",
        _at(
            f"{_GITHUB}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw",
            **{f"raw/{name}.gz": sha for name, sha in _MULTI30K.items()},
        ),
    ),
    "squad": Pins(
        "questions whose answer is a span of a paragraph (version 1.1)",
        98169,
        "not stated (repository MIT)",
        {
            f"{part}-v1.1.json": (f"https://rajpurkar.github.io/SQuAD-explorer/dataset/{part}-v1.1.json", sha)
            for part, sha in (
                ("train", "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
                ("dev", "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
            )
        },
        "squad_dev",
    ),
    "dialogsum": Pins(
        "dialogues and their summaries; dev and test, train from your own copy",
        1000,
        "CC BY-NC-SA 4.0",
        _at(
            f"{_GITHUB}/cylnlp/dialogsum/848cc8c05e0a04def79326539de827f1b28786a0/DialogSum_Data",
            **{
                "dialogsum.dev.jsonl": "436721e0a3571eef7072964f80e042fb151d8c6178db1a688ce8f803bbf0a13f",
                "dialogsum.test.jsonl": "6de36eca7e7b9b10975fd5ea3f47391df172d8b3c15d03d84d763cbaab015fda",
            },
        ),
        "dialogsum_dev_test",
    ),
    "clinc150": Pins(
        "requests to an assistant, 150 intents and out of scope",
        23700,
        "CC BY 3.0",
        _at(
            f"{_GITHUB}/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data",
            **{"data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"},
        ),
    ),
}
