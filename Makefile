# make reproduce | make test | make torture | make lab | make bench | make site | make browser: each is enough on a new clone
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NODEPS := $$($(BIN)/python -c "import configparser as c; p=c.ConfigParser(); p.read('settings.ini'); print(*p['DEFAULT']['offline_nodeps_requirements'].split())")

.PHONY: reproduce test torture lab bench site browser export clean

$(VENV)/.offline: settings.ini setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[offline]"
	$(BIN)/pip install -q --no-deps $(NODEPS)
	touch $@

$(VENV)/.dev: settings.ini setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	$(BIN)/pip install -q --no-deps $(NODEPS)
	touch $@ $(VENV)/.offline

$(VENV)/.site: settings.ini setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $$($(PYTHON) -c "import configparser as c; p=c.ConfigParser(); p.read('settings.ini'); print(*p['DEFAULT']['site_requirements'].split())")
	touch $@

$(VENV)/.browser: $(VENV)/.dev
	$(BIN)/pip install -q -e ".[site,browser]"
	touch $@ $(VENV)/.site

reproduce: $(VENV)/.offline
	$(BIN)/u1nb-reproduce

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# every hostile test, the long ones too, with a table of what was tried
torture: $(VENV)/.dev
	OMP_NUM_THREADS=1 U1NB_TORTURE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal tests/hostile

lab: $(VENV)/.dev
	$(BIN)/jupyter lab --notebook-dir=nbs

site: $(VENV)/.site
	$(BIN)/python nbs/site/build.py

# needs Chromium (Debian: apt install chromium)
browser: $(VENV)/.browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/browser

bench: $(VENV)/.dev
	rc=0; for b in $(filter-out bench/experiments.py bench/jobs.py bench/trials.py bench/trained.py,$(wildcard bench/*.py)); do $(BIN)/python $$b || rc=1; done; exit $$rc

export: $(VENV)/.dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean

clean:
	rm -rf $(VENV) build dist *.egg-info report _site
