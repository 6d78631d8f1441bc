"""The LaTeX document: escaped, well-formed, and compiled where there is a LaTeX."""

import re
import shutil
import subprocess

import pytest

from llava_mole.reproduce.report.content import Cell, Report, Table
from llava_mole.reproduce.report.latex import escape, latex

EVIL = r"50% \input{x} $a_b^c$ #1 & ~ <x> |y| `q' [1,0] * λ − – ± × · α † é 日 \\"


@pytest.mark.parametrize("folder", ["tiny", "paper"])
def test_what_opens_closes(folder, request):
    text = (request.getfixturevalue(folder) / "report.tex").read_text(encoding="utf-8")
    begun, stack = re.findall(r"\\(begin|end)\{(\w+)\}", text), []
    for kind, name in begun:
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == text.count(r"\begin{longtable}")


@pytest.mark.parametrize("folder", ["tiny", "paper"])
def test_every_row_has_the_columns_of_its_table(folder, request):
    text = (request.getfixturevalue(folder) / "report.tex").read_text(encoding="utf-8")
    tables = re.findall(r"\\begin\{longtable\}\{([^\n]*)\}\n(.*?)\\end\{longtable\}", text, re.S)
    assert len(tables) > 10
    for columns, body in tables:
        number = len(re.sub(r">\{.*?\}p\{\d+mm\}", "p", columns))
        lines = [line for line in body.split("\n") if line.endswith((r"\\[1pt]", r"\\"))][1:]
        assert lines
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == number - 1


def test_escape():
    assert escape("a_b & 50% #1") == r"a\_b \& 50\% \#1"
    assert escape("\\ { } ~ ^") == (r"\textbackslash{} \{ \} \textasciitilde{} \textasciicircum{}")
    assert escape("[1,0] −2.0") == "{[}1,0{]} $-$2.0"
    assert escape("日\x07 é") == r"\texttt{U+65E5} é"
    assert escape("a\nb") == "a b"


def test_every_character_that_reports_use_is_written_out(tiny, paper):
    for folder in (tiny, paper):
        text = (folder / "report.tex").read_text(encoding="utf-8")
        assert not re.search(r"U\+[0-9A-F]{4}", text)
        assert text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("folder", ["tiny", "paper", "evil"])
def test_it_compiles(folder, request, tmp_path):
    if folder == "evil":
        cell = Cell(EVIL, (EVIL, EVIL))
        table = Table("t", EVIL, [EVIL] * 3, [[cell] * 3, [Cell("[x]")] * 3], [EVIL], 2)
        (tmp_path / "report.tex").write_text(
            latex(Report(EVIL, EVIL, [], [EVIL], [table]), "figures"), encoding="utf-8"
        )
    else:
        shutil.copytree(request.getfixturevalue(folder), tmp_path, dirs_exist_ok=True)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    if folder != "evil":
        assert "Overfull" not in log
