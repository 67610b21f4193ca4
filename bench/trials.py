"""One-hot + U(1) on the whole of CIFAR-10: 8 arms, as many seeds as the minutes allow, in order of value.

Run again, it goes on from the rows that are there. On a GPU, and on two CPU cores (5,000 pictures, the small network):

    U1NB_DATA=data python bench/trials.py --out nbs/results/54_whole_cifar10 --minutes 8 --processes 6
    U1NB_DATA=data python bench/trials.py --out rows --minutes 360 --small

What is compared, and by which rule a configuration is chosen, stands in nbs/54_whole_cifar10.ipynb and was written
before the first run. Processes share a GPU, since one alone waits for Python.
"""
import argparse, os, time
from pathlib import Path
os.environ.setdefault('TQDM_DISABLE', '1')
import torch
torch.set_num_threads(1)      # before anything counts: the processes are forked, and OpenMP's threads are not
from u1nb.core import Results
from u1nb.trials import Arm, paired, standard_arms, task

RATES,WEIGHTS,CHOICE,FRESH = (.05,.1,.2,.4,.8),(.03,.1,.3,1.),range(1000, 1003),range(100)
FIRST = ('onehot','onehot+u1','onehot+u1:random','onehot+smoothing','onehot+simplex')   # of eight arms

def screened():
    "U(1), and the simplex that says how much a head of this weight can learn"
    for w in WEIGHTS:
        for a in standard_arms(w)[1:]:
            if a.name in ('onehot+u1','onehot+simplex'): yield Arm(f'{a.name} {w}', w, control=a.control)

def work(rank, jobs, t, out, until, common):
    "Every job whose turn it is, until time is up: (arms, seed, settings)"
    torch.backends.cudnn.benchmark = True
    for arms,seed,how in jobs:
        if time.time()>until: return
        paired(arms, [seed], t, out=out/f'part-{rank}.jsonl', progress=False, **common, **how)

def run(name, jobs, t, out, until, common, processes):
    "The rows of a stage, those of earlier calls included; jobs that they hold are not run again"
    ctx,file = torch.multiprocessing.get_context('fork'),out/f'runs-{name}.jsonl'
    there = {(r['arm'], r['seed'], r['lr']) for r in (Results.load(file) if file.exists() else ())}
    def left(arms, seed, how): return [a for a in arms if (a.name, seed, how.get('lr', common.get('lr'))) not in there]
    todo = [(left(*j), *j[1:]) for j in jobs if left(*j)]
    shares = [todo[k::processes] for k in range(min(processes, len(todo)))]
    ps = [ctx.Process(target=work, args=(k, share, t, out, until, common)) for k,share in enumerate(shares)]
    for p in ps: p.start()
    for p in ps: p.join()
    parts = sorted(out.glob('part-*.jsonl'))
    with file.open('a', encoding='utf-8') as f: f.writelines(p.read_text(encoding='utf-8') for p in parts)
    for p in parts: p.unlink()
    rows = Results.load(file).frame()
    print(f'{name}: {len(rows)} rows, {len(todo)} jobs were open, {[p.exitcode for p in ps]}', flush=True)
    return rows, len(rows)>=sum(len(j[0]) for j in jobs)

def main(out, minutes, processes, small, device, seeds):
    until,out = time.time()+60*minutes,Path(out)
    out.mkdir(parents=True, exist_ok=True)
    t = task('cifar10_jpeg', 32, *((5000, 5000) if small else ()))
    t.train.digest(), t.test.digest(), t.train.moments()                       # once, for all processes
    line = f'--out nbs/results/54_whole_cifar10 --minutes {minutes:g} --processes {processes}'+' --small'*small
    common = dict(epochs=8, precision='bf16', small=small, device=device, command_line=f'U1NB_DATA=data python bench/trials.py {line}')
    common |= dict(model='fastnet_small', batch_size=100) if small else dict(model='fastnet', batch_size=1000)
    jobs = [([Arm('onehot')], s, dict(lr=lr, phase='rates', held=.1)) for lr in RATES for s in CHOICE]
    rates,done = run('rates', jobs, t, out, until, common, processes)
    if not done: return
    common['lr'] = float(rates.groupby('lr').value.mean().idxmax())
    jobs = [([a], s, dict(phase='screen', held=.1)) for a in screened() for s in CHOICE]
    screen,done = run('screen', jobs, t, out, until, common, processes)
    if not done: return
    kinds = screen.assign(kind=screen.control.fillna('u1'))
    means = kinds.pivot_table(index='weight', columns='kind', values=['value','accuracy_u'])
    learns = means[means['accuracy_u','u1']>=.5*means['accuracy_u','simplex']]
    weight = float((learns if len(learns) else means)['value','u1'].idxmax())
    print(f'lr {common["lr"]:g}, weight {weight:g}; the head learns at {list(learns.index)}\n{means.round(4)}', flush=True)
    arms = standard_arms(weight)
    first,rest = [a for a in arms if a.name in FIRST],[a for a in arms if a.name not in FIRST]
    blocks = range(min(27, seeds)),range(27, seeds)        # the controls that ran last get seeds too
    jobs = [(some, s, dict(phase='confirm')) for block in blocks for some in (first, rest) for s in block]
    rows,_ = run('confirm', jobs, t, out, until, common, processes)
    print(rows.groupby('arm').value.agg(['size','mean','std']).round(5), rows.seconds.median())

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--out', required=True)
    p.add_argument('--minutes', type=float, default=8)
    p.add_argument('--processes', type=int, default=2)
    p.add_argument('--small', action='store_true', help='5,000 pictures and the small network')
    p.add_argument('--device', default=None)
    p.add_argument('--seeds', type=int, default=len(FRESH))
    a = p.parse_args()
    main(a.out, a.minutes, a.processes, a.small, a.device, a.seeds)
