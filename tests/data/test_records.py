import pickle

import pytest

from llava_mole.data.records import BadRecord, Problem, Record, Turn
from tests.data.helpers import record


def test_a_good_record_keeps_everything():
    good = record("<image>\nOne <image>?", "Two", "More?", "Yes <image>")
    assert good.images == ("0.png", "1.png")
    assert good.turns[0] == Turn("user", "<image>\nOne <image>?")


@pytest.mark.parametrize(
    ("contents", "images", "reason"),
    [
        ((), (), "no turns"),
        (("Q",), (), "nobody answers"),
        (("Q", " \n"), (), "assistant's text is empty"),
        (("", "A"), (), "user's text is empty"),
        (("<image>Q", "A"), (), r"0 image\(s\) but 1 <image>"),
        (("Q", "A"), ("a.png",), r"1 image\(s\) but 0 <image>"),
        (("<image>Q", "A"), ("a.png", "b.png"), r"2 image\(s\) but 1"),
        (("<image>Q", "A"), ("",), "not a path"),
        (("<image>Q", "A"), ("a\0b.png",), "not a path"),
        (("<image>Q", "A"), (b"",), "image: empty"),
        (("<image>Q", "A"), ("\ud800.png",), "not a path"),
        (("Q \ud800", "A"), (), "lone surrogate"),
    ],
)
def test_bad_records_name_place_and_remedy(contents, images, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        record(*contents, images=images)
    assert str(caught.value).startswith("f.jsonl:7: record 'r1': ")


def test_roles_must_alternate():
    turns = (Turn("assistant", "A"), Turn("user", "Q"))
    with pytest.raises(BadRecord, match=r"conversations\[0\]: role is 'assistant'"):
        Record("r", "s", "t", (), turns)


def test_bad_record_survives_pickling():
    error = pickle.loads(pickle.dumps(BadRecord("why", "f", 3, "x")))
    assert (error.file, error.line, error.id, error.reason) == ("f", 3, "x", "why")


def test_a_report_does_not_swell_with_what_it_quotes():
    error = BadRecord("why", "f", 3, "x" * 10**6)
    assert len(str(Problem.of("set", error))) < 300
    with pytest.raises(BadRecord) as caught:
        record("<image>Q", "A", images=("\0" * 10**6,))
    assert len(str(caught.value)) < 2000
