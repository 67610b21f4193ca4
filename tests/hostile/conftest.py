"""What others do to a long run: damaged pictures and files, kills, second writers, misuse.

Each case is a `trial` with one of four outcomes: *right*, a *clear* error (of a kind that is meant, naming what was given),
an *unclear* one, or *wrong* (taken without a word). The last two fail the test. `make torture` counts them in a table;
`make test` runs the quick share."""
import os
from collections import Counter
import pytest
from hypothesis import HealthCheck, settings

TORTURE = bool(os.environ.get('U1NB_TORTURE'))
common = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile('quick', max_examples=15, **common)
settings.register_profile('torture', max_examples=300, **common)
settings.load_profile('torture' if TORTURE else 'quick')

def pytest_collection_modifyitems(config, items):
    "Tests marked `torture` run in `make torture` only"
    long = [] if TORTURE else [i for i in items if i.get_closest_marker('torture')]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [i for i in items if i not in long]

@pytest.fixture
def many():
    "`many(quick, all)`: how often a test tries"
    return lambda quick, all: all if TORTURE else quick

CLEAR = (ValueError, TypeError, OSError, LookupError, SystemExit)

@pytest.fixture
def trial(record_property):
    "`trial(call, right=…, names=…)`: call, and tell which of the four it was"
    bad = []
    def go(
        call,         # tried without arguments
        right=None,   # of the result: is it right? None: nothing is right but a refusal
        names=(),     # what a clear error must contain, a string or several
        kinds=CLEAR,  # errors that are meant
    ):
        names = [names] if isinstance(names, str) else names
        try: res = call()
        except kinds as e: outcome, said = ('clear' if all(str(n) in str(e) for n in names) else 'unclear'), repr(e)
        except Exception as e: outcome, said = 'unclear', repr(e)
        else: outcome, said = ('right' if right is not None and right(res) else 'wrong'), repr(res)
        record_property('trial', outcome)
        if outcome in ('unclear','wrong'): bad.append(f'{outcome}: {said[:600]}')
    yield go
    assert not bad, '\n'.join(bad)

tried = {}
def pytest_runtest_logreport(report):
    if report.when=='teardown':
        got = [v for k,v in report.user_properties if k=='trial']
        if got: tried.setdefault(report.nodeid.split('::')[0].split('/')[-1], Counter()).update(got)

def pytest_terminal_summary(terminalreporter):
    if not tried: return
    kinds = ['right','clear','unclear','wrong']
    terminalreporter.section('hostile trials')
    row = lambda name, c: f'{name:24}' + ''.join(f'{n:>14}' for n in [sum(c.values()), *(c[k] for k in kinds)])
    terminalreporter.line(f'{"":24}' + ''.join(f'{h:>14}' for h in ['tried','right','clear error','unclear','wrong']))
    for name,c in sorted(tried.items()): terminalreporter.line(row(name, c))
    terminalreporter.line(row('all', sum(tried.values(), Counter())))
