"""Questions come from us or from a file, whose mistakes are told with their lines."""

import json
from collections import Counter

import pytest

from qwen_edge.core.errors import UserError
from qwen_edge.rate.questions import Question, our_questions, read_questions


@pytest.fixture
def read(tmp_path):
    def read(name, text):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_questions(file)

    return read


def test_ours_are_in_both_languages_and_of_every_kind():
    questions = our_questions()
    assert len(questions) == 24
    kinds = "fact", "home control", "sensor", "summary", "instruction", "reasoning", "translation", "refusal"
    assert Counter(question.kind for question in questions) == dict.fromkeys(kinds, 3)
    assert Counter(question.language for question in questions) == {"zh": 12, "en": 12}
    for kind in kinds:
        assert {question.language for question in questions if question.kind == kind} == {"zh", "en"}
    assert all(question.id.endswith(f"-{question.language}") for question in questions)
    assert sum(not question.reference for question in questions) == 2


def test_the_same_questions_are_read_from_every_form(read):
    fields = [
        {"id": "1", "question": "你是谁？", "language": "zh", "kind": "who", "reference": "a model"},
        {"id": "b", "question": 'Say "hi",\nplease', "language": "", "kind": "", "reference": ""},
    ]
    wanted = [Question(**one) for one in fields]
    assert read("q.json", json.dumps(fields, indent=2)) == wanted
    assert read("q.json", b"\xef\xbb\xbf" + json.dumps(fields).encode()) == wanted
    yaml = "- question: 你是谁？\n  language: zh\n  kind: who\n  reference: a model\n"
    assert read("q.yml", yaml + '- id: b\n  question: "Say \\"hi\\",\\nplease"\n') == wanted
    rows = 'question,language,kind,reference,id\n你是谁？,zh,who,a model\n"Say ""hi"",\nplease",,,,b\n'
    assert read("q.csv", rows) == wanted
    assert read("q.csv", rows.replace("\n你", "\r\n你")) == wanted


def test_a_text_file_has_one_question_a_line(read):
    assert [(one.id, one.question) for one in read("q.txt", "Who?\n\n  为什么？ \n")] == [
        ("1", "Who?"),
        ("2", "为什么？"),
    ]
    assert [one.question for one in read("q.yaml", "- Who?\n- 为什么？\n")] == ["Who?", "为什么？"]


@pytest.mark.parametrize(
    ("name", "text", "line", "what"),
    [
        ("q.yaml", "- a\n- question: [x]\n", 2, "question must be a text"),
        ("q.yaml", "- a\n- {question: b, kid: c}\n", 2, "unknown field 'kid'"),
        ("q.yaml", "- a\n-\n  kind: x\n", 3, "the question is missing"),
        ("q.yaml", "- id: x\n  question: a\n- id: x\n  question: b\n", 3, "is that of line 1"),
        ("q.yaml", "- a\n- 'b\n", 3, "not valid YAML"),
        ("q.yaml", "a: b\n", 1, "must be a list"),
        ("q.yaml", "- a\n- 2024-13-45\n", 1, "not valid YAML"),
        ("q.json", '[\n "a",\n {"question": ""}\n]', 3, "the question is missing"),
        ("q.json", '[\n "a",\n 1]', 3, "a question is a text"),
        ("q.json", '[\n "a"\n "b"]', 3, "not valid JSON"),
        ("q.json", '{"question": "a"}', 1, "must be a list"),
        ("q.csv", "text\nWho?\n", 1, "must name the fields"),
        ("q.csv", 'question,id\n"two\nlines",a\nWho?,a\n', 4, "is that of line 2"),
        ("q.csv", "question\na,b\n", 2, "2 values"),
        ("q.csv", 'question\n"a"b\n', 2, "not valid CSV"),
        ("q.txt", b"Who?\n\xff\n", 2, "not UTF-8"),
        ("q.json", '["' + "x" * 10 + '", {"question": "a", "id": "' + "i" * 101 + '"}]', 1, "longer than 100"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(read, name, text, line, what):
    with pytest.raises(UserError) as told:
        read(name, text)
    assert f"{name}, line {line}: " in str(told.value)
    assert what in str(told.value)


@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_a_file_without_a_question_is_refused(read, text):
    for name in ("q.yaml", "q.json") if text == "[]" else ("q.txt", "q.yaml"):
        with pytest.raises(UserError, match="has no question"):
            read(name, text)


def test_a_value_that_contains_itself_or_nests_deeply_is_refused(read):
    with pytest.raises(UserError, match=r"line 1|too many levels"):
        read("q.json", "[" * 100_000)
    with pytest.raises(UserError):
        read("q.yaml", "&a\n- *a\n")
    with pytest.raises(UserError):
        read("q.yaml", "[" * 10_000)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_questions(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_questions(tmp_path)
