"""What ``import llava_mole`` does and, for the sake of start-up, leaves undone."""

import subprocess
import sys

import pytest


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_and_its_commands_loads_no_heavy_library():
    heavy = "{'torch', 'peft', 'transformers', 'torchvision', 'datasets'} & set(sys.modules)"
    assert _run(f"import sys, llava_mole.cli.main; print({heavy})") == "set()"


@pytest.mark.parametrize(
    "imports",
    [
        "import llava_mole, peft",
        "import llava_mole.tuner, peft",
        "from llava_mole import MoleConfig; import peft",
        "import llava_mole; from peft import PeftModel; import peft",
    ],
)
def test_peft_knows_mole_in_whatever_order_they_are_imported(imports):
    known = "peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType.MOLE].__name__"
    assert _run(f"{imports}; print({known})") == "MoleModel"


def test_torchvision_loads_whatever_torch_it_is_beside():
    code = "import llava_mole, torchvision; from torchvision import transforms; print('loaded')"
    assert _run(code) == "loaded"


def test_an_error_of_torchvision_that_is_not_the_known_one_is_not_swallowed():
    code = """
from llava_mole import _torchvision
def broken():
    raise RuntimeError("something else")
try:
    _torchvision.execute(broken)
except RuntimeError as error:
    print(error)
"""
    assert _run(code) == "something else"
