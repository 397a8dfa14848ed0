# What can be done here: `make help`. Everything stays inside the checkout; nothing needs root.

VENV = .venv
PY = $(VENV)/bin/python
PYTHONS = 3.11 3.12
ARGS =

.ONESHELL:
.SHELLFLAGS = -ec
.DELETE_ON_ERROR:
.DEFAULT_GOAL = help
.PHONY: help install demo test test-all-pythons lint types audit crash bench lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## what Passerelle and its tests need, into ./.venv (PYTHON=… chooses the interpreter)

# Usable is a Python of at least 3.11 that can make a venv with pip in it.
$(VENV)/.installed: pyproject.toml requirements.lock
	@usable='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
	for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do
	    if "$$python" -c "$$usable" 2>/dev/null; then break; fi
	    python=
	done
	if [ -z "$$python" ]; then
	    echo "Passerelle needs Python 3.11 or newer with venv. None of these is one: $(PYTHON) python3 python3.13 python3.12 python3.11" >&2
	    echo "On Debian: apt install python3-venv. Elsewhere: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2
	    exit 1
	fi
	"$(PY)" -c "$$usable" 2>/dev/null || "$$python" -m venv --clear $(VENV)
	echo '*' >$(VENV)/.gitignore
	total=$$(grep -c '^[a-z0-9].*==' requirements.lock)
	echo "installing into $(VENV): $$("$(PY)" --version), $$total packages"
	{
	    PYTHONUNBUFFERED=1 "$(PY)" -m pip install --disable-pip-version-check --progress-bar off --no-compile \
	        --require-hashes -r requirements.lock 2>$(VENV)/pip-errors && echo yes >$(VENV)/pip-said || echo no >$(VENV)/pip-said
	} | awk -v total=$$total '
	    /^(Collecting|Processing|Ignoring|Requirement already)/ && ++n % 20 == 0 { printf "  %3d of %d\n", n, total; fflush() }
	    /^Installing collected/ { print "  unpacking, about half a minute"; fflush() }'
	if [ "$$(cat $(VENV)/pip-said)" != yes ]; then cat $(VENV)/pip-errors >&2; exit 1; fi
	"$(PY)" -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@
	echo "installed"

demo: install  ## play the story on a real homeserver, then stay up (ONCE=1: check it and end)
	@exec "$(PY)" -m tests.demo $(if $(ONCE),--once)

# AGAIN=1: what fails on a busy machine is run once more, alone; the log shows both.
test: install  ## the whole suite (ARGS="-k thread -x" goes to pytest)
	@"$(PY)" -m pytest -n 4 $(ARGS) || {
	    status=$$?
	    [ "$(AGAIN)" ] && [ $$status -eq 1 ] || exit $$status
	    echo "== once more and alone: what failed"
	    "$(PY)" -m pytest --last-failed --last-failed-no-failures none --maxfail 3 $(ARGS)
	}

test-all-pythons: install  ## the whole suite on each of Python 3.11 and 3.12 that this machine has
	@here=$$("$(PY)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	for version in $(PYTHONS); do
	    found=
	    for python in python$$version $$(ls -d "$$(pyenv root 2>/dev/null || echo /nowhere)"/versions/$$version.*/bin/python 2>/dev/null); do
	        if "$$python" -c 'import ensurepip' 2>/dev/null; then found=$$python; break; fi
	    done
	    if [ "$$version" = "$$here" ]; then
	        echo "== Python $$version, in $(VENV)"
	        $(MAKE) --no-print-directory test
	    elif [ -n "$$found" ]; then
	        echo "== Python $$version, in $(VENV)-$$version"
	        $(MAKE) --no-print-directory test VENV=$(VENV)-$$version PYTHON="$$found"
	    else
	        echo "== Python $$version: not run, this machine has none"
	    fi
	done

lint: install  ## ruff: mistakes and layout
	@"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .

types: install  ## mypy, strict
	@exec "$(PY)" -m mypy

audit: install  ## are vulnerabilities known of what we depend on?
	@exec "$(PY)" .ci/audit.py

crash: install  ## kill the bridge a hundred times under load and count what is lost
	@exec "$(PY)" -m tests.crash $(ARGS)

bench: install  ## how fast, one JSON line per figure
	@exec "$(PY)" -m tests.bench $(ARGS)

lock:  ## write the locks anew from pyproject.toml: all, and what running needs (UPGRADE=1: to the newest versions)
	@uv=$(VENV)/bin/uv
	[ -x "$$uv" ] || uv=uv
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras \
	    --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock
	"$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" --constraint requirements.lock pyproject.toml -o requirements-run.lock

clean:  ## remove all that was made here, ./.venv too
	@rm -rf $(VENV) $(VENV)-audit $(patsubst %,$(VENV)-%,$(PYTHONS)) .demo .work .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
