"""Which tokens texts in a language may need, and what is said about a language that is not known."""

import pytest

from qwen_edge.convert.languages import LANGUAGES, Alphabet, check_languages
from qwen_edge.core.errors import ConversionError

EVERYWHERE = [
    b" the",
    b"def __init__(",
    b"12",
    b" \n\t",
    "…".encode(),
    "€".encode(),
    "🙂".encode(),
    "→".encode(),
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_digits_punctuation_and_emoji_are_kept_for_every_language(language):
    alphabet = Alphabet([language])
    assert [token for token in EVERYWHERE if alphabet.group(token) is None] == []


@pytest.mark.parametrize(
    ("language", "kept", "cut"),
    [
        ("en", ["café", " naïve"], ["你", "да", "łódź", "ß", "カ", "한", "שלום"]),
        ("zh", ["你好", "，但", "《", "Ａ", "繁體"], ["да", "の", "カ", "한", "é"]),
        ("ja", ["日本", "です", "カメラ", "。"], ["да", "한"]),
        ("ko", ["한국", "。"], ["日", "の", "да"]),
        ("de", ["straße", "Über"], ["ça", "łó", "да"]),
        ("fr", ["déjà", "Çà", "œuvre"], ["straße", "ñ"]),
        ("es", ["año", "¿qué"], ["ã", "ß"]),
        ("pt", ["não", "ação"], ["ñ", "ß"]),
        ("it", ["perché", "città"], ["ñ", "ã"]),
        ("nl", ["coördinatie"], ["ß", "ñ"]),
        ("pl", ["łódź", "Święto"], ["ß", "ñ"]),
        ("ru", ["привет", "Ёж"], ["你", "é"]),
        ("ar", ["مرحبا", "؟"], ["ש", "да"]),
        ("hi", ["नमस्ते", "।"], ["বা", "да"]),
        ("tr", ["ışık", "İstanbul", "ğ"], ["ß", "ñ"]),
        ("vi", ["Việt", "được", "ơ"], ["ß", "ñ"]),
    ],
)
def test_a_language_keeps_its_letters_and_no_others(language, kept, cut):
    alphabet = Alphabet([language])
    assert [word for word in kept if alphabet.group(word.encode()) is None] == []
    assert [word for word in cut if alphabet.group(word.encode()) is not None] == []


def test_parts_of_a_character_are_kept_with_it():
    zh, en = Alphabet(["zh"]), Alphabet(["en"])
    you, emoji = "你".encode(), "🙂".encode()
    for part in (you[:2], you[1:], b"\xe5", emoji[:3], emoji[1:3], you[1:] + "好".encode()[:2]):
        assert zh.group(part) is not None, part
    assert en.group(you[:2]) is None
    assert en.group(emoji[:3]) is not None


def test_bytes_that_are_no_text_belong_to_no_language():
    alphabet = Alphabet(LANGUAGES)
    assert alphabet.group(b"\xff\xfe") is None
    assert alphabet.group(b"\xe4\xb8\xad\x80\x80") is None, "a character with bytes that do not belong to it"


def test_several_languages_keep_what_each_of_them_keeps():
    alphabet = Alphabet(["zh", "ru"])
    assert None not in [alphabet.group(word.encode()) for word in ("你好", "привет", "你, да")]
    assert alphabet.group("你好".encode()) != alphabet.group("привет".encode())


def test_the_order_of_languages_means_nothing_and_each_counts_once():
    assert check_languages("zh,en") == check_languages(" EN, zh en ") == ("en", "zh")
    assert check_languages(None) == ()


@pytest.mark.parametrize("given", ["xx", "zh,klingon", "en-US"])
def test_an_unknown_language_is_told_with_those_that_are_known(given):
    with pytest.raises(ConversionError, match=r"is not a language of this option\. .* ar, .*de, .*zh\.$"):
        check_languages(given)


def test_an_empty_list_and_a_bound_without_a_list_are_told():
    with pytest.raises(ConversionError, match="no language is given"):
        check_languages(" , ")
    with pytest.raises(ConversionError, match="--vocabulary needs --languages"):
        check_languages(None, 1024)
