"""One-hot + U(1) on the whole of CIFAR-10: 8 arms, as many seeds as the minutes allow, in order of value.

Run again, it goes on from the rows that are there. On a GPU, and on two CPU cores (5,000 pictures, the small network):

    U1NB_DATA=data python bench/trials.py --out nbs/results/54_whole_cifar10 --minutes 8 --processes 6
    U1NB_DATA=data python bench/trials.py --out rows --minutes 360 --small

What is compared, and by which rule a configuration is chosen, stands in nbs/54_whole_cifar10.ipynb and was written
before the first run. Processes share a GPU, since one alone waits for Python.
"""
import os
from dataclasses import replace
if __name__=='__main__': os.environ.setdefault('TQDM_DISABLE', '1')      # read when tqdm is imported
import pandas as pd
from jobs import begin, in_turn, parser
from u1nb.trials import head_share, paired, standard_arms, task

RATES,WEIGHTS,CHOICE,FRESH = (.05,.1,.2,.4,.8),(.03,.1,.3,1.),range(1000, 1003),range(100)
FIRST = ('onehot','onehot+u1','onehot+u1:random','onehot+smoothing','onehot+simplex')   # of eight arms

def named(r):
    "What a job and its row have in common"
    return r['arm'],r['seed'],r['lr']

def arm_of(name, weight):
    "A standard arm; those of the screening say their weight"
    return next(replace(a, name=name) for a in standard_arms(weight or 1.) if a.name==name.split()[0])

def one(job, t, common):
    "The row of one run"
    how = {k:v for k,v in job.items() if k not in ('arm','weight','seed')}
    return paired([arm_of(job['arm'], job['weight'])], [job['seed']], t, progress=False, **common, **how)

def rate_jobs():
    "One-hot at every learning rate"
    return [dict(arm='onehot', weight=0., seed=s, lr=lr, phase='rates', held=.1) for lr in RATES for s in CHOICE]

def screen_jobs(lr):
    "U(1), and the simplex that says how much a head of this weight can learn"
    return [dict(arm=f'{a} {w}', weight=w, seed=s, lr=lr, phase='screen', held=.1) for w in WEIGHTS
            for a in ('onehot+u1','onehot+simplex') for s in CHOICE]

def confirm_jobs(lr, weight, seeds):
    "Five arms first; but after 27 seeds the controls that ran last get theirs too"
    rest = [a.name for a in standard_arms(weight) if a.name not in FIRST]
    blocks = range(min(27, seeds)),range(27, seeds)
    return [dict(arm=a, weight=weight, seed=s, lr=lr, phase='confirm')
            for block in blocks for some in (FIRST, rest) for s in block for a in some]

def main(out, minutes, processes, small, device, seeds):
    out,until = begin(out, minutes)
    t = task('cifar10_jpeg', 32, *((5000, 5000) if small else ()))
    t.train.digest(), t.test.digest(), t.train.moments()                       # once, for all processes
    line = f'--out nbs/results/54_whole_cifar10 --minutes {minutes:g} --processes {processes}'+' --small'*small
    common = dict(epochs=8, precision='bf16', small=small, device=device)
    common['command_line'] = f'U1NB_DATA=data python bench/trials.py {line}'
    common |= dict(model='fastnet_small', batch_size=100) if small else dict(model='fastnet', batch_size=1000)
    def stage(phase, jobs):
        rows,done = in_turn(jobs, one, (t, common), out/f'runs-{phase}.jsonl', until, processes, named)
        return pd.DataFrame(rows),done
    rates,done = stage('rates', rate_jobs())
    if not done: return
    lr = float(rates.groupby('lr').value.mean().idxmax())
    screen,done = stage('screen', screen_jobs(lr))
    if not done: return
    share,value = head_share(screen, ('weight',)),screen[screen.control.isna()].groupby('weight').value.mean()
    learns = share>=.5
    weight = float((value[learns] if learns.any() else value).idxmax())
    print(f'lr {lr:g}, weight {weight:g}; the head is right, of the simplex:\n{share.round(2)}', flush=True)
    rows,_ = stage('confirm', confirm_jobs(lr, weight, seeds))
    print(rows.groupby('arm').value.agg(['size','mean','std']).round(5), rows.seconds.median())

if __name__=='__main__':
    p = parser(__doc__)
    p.add_argument('--small', action='store_true', help='5,000 pictures and the small network')
    p.add_argument('--seeds', type=int, default=len(FRESH))
    main(**vars(p.parse_args()))
