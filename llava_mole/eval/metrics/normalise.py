"""The VQA challenge's normalisation of short answers, which eHub, LLaVA-Med and M4C all took over.

Source: the evaluation code of Antol et al., "VQA: Visual Question Answering", arXiv 1505.00468, as
copied, slips included, into OpenGVLab/Multi-Modality-Arena ``VQAEval``, microsoft/LLaVA-Med
``normalize_word`` and facebookresearch/mmf ``EvalAIAnswerProcessor``. Published scores were made
with the slips, so they stay.
"""

import re

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The original pattern's look-behind is misspelt and never looks behind: "3." loses its period.
_PERIOD = re.compile(r"\.(?!\d)")
# The originals pass re.UNICODE, which is 32, where ``sub`` takes the number of replacements.
_MOST_PERIODS = 32
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}


def _pairs(table: str) -> dict[str, str]:
    words = table.split()
    return dict(zip(words[::2], words[1::2], strict=True))


# Without the published table's keys that hold a capital (Im, Ive, ...): they are looked up in lower
# case and never found. "somebody'd" does lose its apostrophe.
_CONTRACTIONS = _pairs("""
aint ain't          arent aren't        cant can't          couldve could've
couldnt couldn't    couldn'tve couldn't've                  couldnt've couldn't've
didnt didn't        doesnt doesn't      dont don't          hadnt hadn't
hadnt've hadn't've  hadn'tve hadn't've  hasnt hasn't        havent haven't
hed he'd            hed've he'd've      he'dve he'd've      hes he's
howd how'd          howll how'll        hows how's          isnt isn't
itd it'd            itd've it'd've      it'dve it'd've      itll it'll
maam ma'am          mightnt mightn't    mightnt've mightn't've
mightn'tve mightn't've                  mightve might've    mustnt mustn't
mustve must've      neednt needn't      notve not've        oclock o'clock
oughtnt oughtn't    ow's'at 'ow's'at    'ows'at 'ow's'at    'ow'sat 'ow's'at
shant shan't        shed've she'd've    she'dve she'd've    shouldve should've
shouldnt shouldn't  shouldnt've shouldn't've                shouldn'tve shouldn't've
somebody'd somebodyd                    somebodyd've somebody'd've
somebody'dve somebody'd've              somebodyll somebody'll
somebodys somebody's                    someoned someone'd  someoned've someone'd've
someone'dve someone'd've                someonell someone'll
someones someone's  somethingd something'd                  somethingd've something'd've
something'dve something'd've            somethingll something'll
thats that's        thered there'd      thered've there'd've
there'dve there'd've                    therere there're    theres there's
theyd they'd        theyd've they'd've  they'dve they'd've  theyll they'll
theyre they're      theyve they've      twas 'twas          wasnt wasn't
wed've we'd've      we'dve we'd've      weve we've          werent weren't
whatll what'll      whatre what're      whats what's        whatve what've
whens when's        whered where'd      wheres where's      whereve where've
whod who'd          whod've who'd've    who'dve who'd've    wholl who'll
whos who's          whove who've        whyll why'll        whyre why're
whys why's          wont won't          wouldve would've    wouldnt wouldn't
wouldnt've wouldn't've                  wouldn'tve wouldn't've
yall y'all          yall'll y'all'll    y'allll y'all'll    yall'd've y'all'd've
y'alld've y'all'd've                    y'all'dve y'all'd've
youd you'd          youd've you'd've    you'dve you'd've    youll you'll
youre you're        youve you've
""")


def normalise(text: str) -> str:
    r"""Brings a short answer into the VQA challenge's form.

    1. Each of ``; / [ ] " { } ( ) = + \ _ - > < @ ` , ? !`` is deleted everywhere if it touches a
       space anywhere, or if there is a comma between two digits; else it becomes a space.
    2. The first 32 periods that no digit follows are deleted.
    3. Lower case; zero and none to ten become digits; a, an, the are dropped; apostrophes return to
       contractions; single spaces.

    Applied twice it may change its own result: LLaVA-Med does so.
    """
    delete = _DIGIT_COMMA_DIGIT.search(text) is not None
    fate = {
        ord(mark): "" if delete or f"{mark} " in text or f" {mark}" in text else " "
        for mark in _MARKS
    }
    text = _PERIOD.sub("", text.translate(fate), count=_MOST_PERIODS)
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def flatten(text: str) -> str:
    """Line feeds and tabs as spaces, nothing outside: what eHub and M4C do before `normalise`.

    It decides which marks touch a space.
    """
    return text.replace("\n", " ").replace("\t", " ").strip()
