@echo off
rem Installs the course beside this file from the wheels beside this file; nothing is downloaded.
rem .\install.cmd [PYTHON]
cd /d "%~dp0"
set "PYTHON=%~1"
if "%PYTHON%"=="" (
  where py >nul 2>&1
  if errorlevel 1 (
    echo Python is missing: install Python @VERSIONS@ from python.org, or name one, as in: .\install.cmd C:\Python\python.exe 1>&2
    exit /b 2
  )
  set "PYTHON=py -3"
)
%PYTHON% -c "import sys; sys.exit('.'.join(map(str, sys.version_info[:2])) not in '@VERSIONS@'.split())"
if errorlevel 1 (
  echo The wheels are for Python @VERSIONS@: name one, as in: .\install.cmd "py -3.12" 1>&2
  exit /b 2
)
%PYTHON% -m venv course\.venv || exit /b 1
course\.venv\Scripts\python -m pip install --disable-pip-version-check --no-index --find-links wheels -r course\requirements.txt -e course || exit /b 1
echo Installed. Now: cd course, then: .venv\Scripts\python -m jupyter lab notebooks
