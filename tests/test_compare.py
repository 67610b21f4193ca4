"A new run held against the stored rows, and the stored rows made again"
import math, shlex, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from u1nb.core import Results
from u1nb.cli import held, jobs, reproduce, remake, stored_rows, whole
from u1nb.rules import apart, compare, condition, current

ROOT = Path(__file__).parents[1]
ROWS = current(stored_rows(ROOT/'nbs/results'))

def changed(rows, where, **new):
    out = Results()
    out.extend(dict(r, **new) if where(r) else r for r in rows)
    return out

def test_conditions_tell_rows_apart():
    said = [condition(r) for r in ROWS]
    assert len(set(said))==len(said)

def test_equal_runs_are_equal():
    for _,n,missing,same,within,differ,verdicts in compare(ROWS, ROWS).lines:
        assert n==same and missing==within==differ==0 and '→' not in verdicts

def test_a_planted_change_is_found():
    def where(r): return (r['claim'],r['key'],r['control'],r['model'],r['data'])==('C1','kappa','uniform','mobilenet_v2','caltech101') and r['reading']=='first'
    found = compare(ROWS, changed(ROWS, where, value=1.2, lo=1.15, hi=1.25))
    (rule,old,new), = found.differ
    assert rule.name=='C1' and where(old) and new['value']==1.2 and '1.2 [1.15, 1.25] is new' in repr(found)
    lines = {l[0]:l for l in found.lines}
    assert lines['C1'][5]==1 and '→' in lines['C1'][6] and all(l[5]==0 for k,l in lines.items() if k!='C1')

def test_a_change_within_error_agrees():
    def where(r): return r['claim']=='C6' and r.get('lo') is not None and r['value']>.1
    def near(r): return dict(r, value=r['value']+.5*(r['hi']-r['value'])) if where(r) else r
    new = Results(); new.extend(map(near, ROWS))
    line = next(l for l in compare(ROWS, new).lines if l[0]=='C6')
    assert line[5]==0 and line[4]>100

def test_rows_that_are_not_there_are_counted():
    few = ROWS.where(claim='C2', model='mobilenet_v2', data='caltech101')[1:]
    (_,n,missing,same,_,_,_), = compare(ROWS, few).lines
    assert n==same==len(few) and missing==1
    with pytest.raises(ValueError, match='no cell'): compare(ROWS, [dict(few[0], model='another')])

@pytest.mark.parametrize('a,b,agree', [
    (dict(value=1, lo=.9, hi=1.1), dict(value=1.13, lo=1.03, hi=1.23), True),      # .13 < √(.1²+.1²)
    (dict(value=1, lo=.9, hi=1.1), dict(value=1.15, lo=1.05, hi=1.25), False),
    (dict(value=1, lo=0., hi=1.01), dict(value=1.15, lo=1.14, hi=3.), False),      # the sides that face each other
    (dict(value=1.15, lo=1.14, hi=3.), dict(value=1, lo=0., hi=1.01), False),
    (dict(value=2.), dict(value=2.001), True), (dict(value=2.), dict(value=2.01), False),
    (dict(value=None), dict(value=None), True), (dict(value=None), dict(value=0.), False),
    (dict(value=None, infinite=['value','hi'], lo=2.), dict(value=3., lo=2.5, hi=4.), True),
    (dict(value=None, infinite=['value','hi'], lo=2.), dict(value=1., lo=.5, hi=1.5), False)])
def test_apart(a, b, agree): assert (apart(a, b)<=1)==agree and (apart(b, a)<=1)==agree

def test_every_command_has_a_reason_or_words(monkeypatch):
    "Without data: what the packages ship can be made again, the rest says what is missing"
    monkeypatch.delenv('U1NB_DATA', raising=False)
    plan = jobs(ROWS, ROOT/'nbs')
    assert {id(r) for j in plan for r in j.rows}=={id(r) for r in ROWS if r['reading']!='own'}          # a network's own accuracy is no claim
    for j in plan: assert bool(j.why)!=all(r['demo'] for r in j.rows), j.command

def test_again(tmp_path, capsys):
    "A command is run, its rows agree, the next time it is skipped; pictures that are not here are named"
    of = dict(size=96, pictures=14, cells=7, seeds=1)
    words = 'u1nb-reproduce --size 96 --claims C2 --n 14 --cells 7 --seeds 1 --out report/x'
    stored = Results()
    stored.extend(dict(r, command=words) for r in reproduce('C2', out=tmp_path/'first', **of))
    stored.extend(dict(r, data='gone', command='u1nb-reproduce --data gone_away --claims C2') for r in stored[:3])
    stored.save(tmp_path/'nbs/results/5/rows.jsonl')
    where = dict(out=str(tmp_path/'again'), stored=str(tmp_path/'nbs/results'))
    capsys.readouterr()
    whole(all=True, **where)
    said = capsys.readouterr().out
    assert '1 to run, about' in said and "1 command: no source 'gone_away'" in said and f'{len(stored)-3} of {len(stored)-3} rows made again' in said
    whole(all=True, **where)
    assert '0 to run' in capsys.readouterr().out
    (name,n,missing,same,within,differ,_), = held(where['out'], where['stored']).lines
    assert (name,n,missing,same,within,differ)==('C2, demo',len(stored)-3,0,n,0,0)

def test_options_that_do_not_go_together(tmp_path):
    with pytest.raises(ValueError, match='--seeds'): whole(all=True, seeds=3, out=str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no rows'): whole(compare=str(tmp_path))
