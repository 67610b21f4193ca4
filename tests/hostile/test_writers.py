"Two processes that write to one place, and runs that come after others: no row twice, no earlier run lost"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest, torch
from forks import begin, end, stop
from test_kills import COMMANDS, TINY, command, left, report
from u1nb import cli
from u1nb.core import Results, alone, beside, replacing, write_tensors
from u1nb.trials import paired, standard_arms, task

def held(path, seconds):
    with alone(path): time.sleep(seconds)

def until(what, seconds=60):
    t0 = time.monotonic()
    while not what() and time.monotonic()-t0<seconds: time.sleep(.002)

def runs(out): paired(standard_arms(.1)[:2], range(2), task('digits', n=60, n_test=30), out=out, device='cpu', model='fastnet_small', epochs=1, progress=False)

def test_one_holds(tmp_path, trial):
    "Two processes with one `--out` doubled the rows with exit 0: the second is refused, and told who writes"
    p = begin(held, tmp_path/'runs.jsonl', 30)
    until((tmp_path/'.runs.jsonl.holder').exists)
    trial(lambda: runs(tmp_path/'runs.jsonl'), names=[tmp_path/'runs.jsonl', p.pid, 'since', 'Wait for its end'], kinds=OSError)
    stop([p], 0)                                                # SIGKILL: the lock goes with the process
    trial(lambda: held(tmp_path/'runs.jsonl', 0), lambda _: not (tmp_path/'.runs.jsonl.holder').exists())

@pytest.mark.torture
@pytest.mark.parametrize('name', COMMANDS)
def test_two_at_once(name, tmp_path, trial):
    "Two commands with one `--out`: one does the work, the other says who does, and the rows are those of one"
    (tmp_path/'tiny.py').write_text(TINY)
    (tmp_path/'one').mkdir()
    (tmp_path/'one/tiny.py').write_text(TINY)
    ps = [begin(command, name, tmp_path, log=tmp_path/f'log{k}') for k in range(2)]
    codes = end(*ps)
    said = [(tmp_path/f'log{k}').read_text() for k in range(2)]
    trial(lambda: sorted(codes), lambda c: c==[0,1] or c==[0,0] and name!='reproduce')   # a quick one may wait its turn
    if 1 in codes: trial(lambda: said[codes.index(1)], lambda s: 'is being written by' in s and str(ps[codes.index(0)].pid) in s and 'Traceback' not in s)
    assert end(begin(command, name, tmp_path/'one'))==[0]
    trial(lambda: left(tmp_path/'out'), lambda got: got==left(tmp_path/'one/out'))

def add(path, word, n):
    rows = Results(path)
    for k in range(n): rows.add('C0', f'{word} {k}', text=word*4000)

def test_lines_of_two_are_whole(tmp_path, many, trial):
    "Rows of 20 kB from two processes at once were written in pieces, and mixed"
    file,n = tmp_path/'rows.jsonl',many(20, 200)
    assert end(*[begin(add, file, w, n) for w in ('abcde','vwxyz')])==[0,0]
    trial(lambda: Results.load(file), lambda rows: sorted(r['key'] for r in rows)==sorted(f'{w} {k}' for w in ('abcde','vwxyz') for k in range(n)))

def die_in_the_middle(file):
    with replacing(file) as part:
        part.write_text('half')
        os.kill(os.getpid(), signal.SIGKILL)

def test_temporary_files(tmp_path, trial):
    "What a killed process left half written is removed by the next; a living one's stays, and carries its number"
    f = tmp_path/'state.safetensors'
    assert end(begin(die_in_the_middle, f))==[-9]
    dead, = tmp_path.glob('.*.part')
    living = tmp_path/dead.name.replace(dead.name.split('-')[-1], f'{os.getppid()}.part')
    living.write_text('of another')
    write_tensors(f, dict(x=torch.ones(3)))
    trial(lambda: sorted(p.name for p in tmp_path.iterdir()), lambda o: o==sorted([f.name, living.name]))

def interrupted(file, rows, kill=False):
    with beside(file) as new:
        res = Results(new)
        for k in range(rows): res.add('C0', f'{k}', value=float(rows))
        if kill: os.kill(os.getpid(), signal.SIGKILL)

def values(file): return [r['value'] for r in Results.load(file)]

def test_earlier_rows_stay(tmp_path, trial):
    "Two killed reruns destroyed a finished report's rows (92 became 1): rows are replaced when the run is whole, and every whole run is kept"
    file = tmp_path/'rows.jsonl'
    interrupted(file, 92)
    for k in (1, 2): assert end(begin(interrupted, file, k, True))==[-9]
    trial(lambda: values(file), lambda v: v==[92.]*92)
    for k in (3, 4): interrupted(file, k)
    trial(lambda: [values(tmp_path/f) for f in ('rows.jsonl','rows.before1.jsonl','rows.before2.jsonl')], lambda v: v==[[4.]*4, [92.]*92, [3.]*3])
    trial(lambda: sorted(o.name for o in tmp_path.iterdir()), lambda o: o==['rows.before1.jsonl','rows.before2.jsonl','rows.jsonl'])

@pytest.mark.torture
def test_killed_reruns_of_a_report(tmp_path, many, trial):
    "The same of the command: its rows and those of its runs stay until others are whole"
    report(tmp_path)
    want = Results.load(tmp_path/'rows.jsonl')
    for k in range(4):
        for f in (tmp_path/'passes').iterdir(): f.unlink()
        p = begin(report, tmp_path)
        until(lambda: (tmp_path/'rows.jsonl.unfinished').exists() or not p.is_alive())
        assert stop([p], .05)==[-9]
        trial(lambda: Results.load(tmp_path/'rows.jsonl'), lambda rows: rows==want)
