#!/bin/sh
# Installs the course beside this file from the wheels beside this file; nothing is downloaded.
# sh install.sh [PYTHON]
set -eu
cd "$(dirname "$0")"
python=${1:-python3}
"$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "@VERSIONS@".split())' || {
  echo "The wheels are for Python @VERSIONS@, and $python is $("$python" --version 2>&1 || echo missing):" \
    "name another one, as in: sh install.sh python3.12" >&2
  exit 2
}
"$python" -m venv course/.venv
course/.venv/bin/python -m pip install --disable-pip-version-check --no-index --find-links wheels \
  -r course/requirements.txt -e course
touch course/.venv/ready # so that make installs nothing again
echo "Installed. Now: cd course, then: make lab (or: .venv/bin/python -m jupyter lab notebooks)"
