"Skips are counted and listed; one that is not in `skips.txt` fails the run"
import fnmatch, socket
from pathlib import Path
import pytest

_lines = [l.split('#')[0].strip() for l in (Path(__file__).parent/'skips.txt').read_text(encoding='utf-8').splitlines()]
ALLOWED = [l for l in _lines if l]
skipped = []

def pytest_runtest_logreport(report):
    if report.skipped and getattr(report, 'wasxfail', 'reason: [NOTRUN]').startswith('reason: [NOTRUN]'):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped.append((report.nodeid, reason))

def pytest_collectreport(report):
    "Skips of whole modules"
    pytest_runtest_logreport(report)

def outside(): return [(n, r) for n,r in skipped if not any(fnmatch.fnmatch(n, p) for p in ALLOWED)]

def pytest_sessionfinish(session, exitstatus):
    if not hasattr(session.config, 'workerinput') and exitstatus==0 and outside(): session.exitstatus = 1

def pytest_terminal_summary(terminalreporter):
    terminalreporter.section(f'{len(skipped)} skipped')
    for n,r in skipped: terminalreporter.line(f'{n}: {r}')
    for n,_ in outside(): terminalreporter.line(f'NOT ALLOWED TO SKIP: {n} (see tests/skips.txt)', red=True)

def pytest_collection_modifyitems(items):
    "Notebooks first: what takes long is not what is left at the end"
    items.sort(key=lambda i: not i.name.startswith('test_notebook['))

@pytest.fixture
def free_port():
    "A port that nobody listens at; launchers of older versions do not find one themselves"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])
