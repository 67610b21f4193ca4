"""Networks trained for the question: padding from birth (57) and U(1) where it could show (59). Resumable.

Run again, it goes on from the rows that are there; jobs come in order of value. On two CPU cores:

    U1NB_DATA=data python bench/trained.py padding --out nbs/results/57_padding_from_birth --minutes 60
    U1NB_DATA=data python bench/trained.py u1 --out nbs/results/59_where_u1_could_show --minutes 60

With --whole (for a GPU) all training pictures, more epochs and more seeds, in files of their own. What is compared,
and by which rules, stands in the two notebooks and was written before the first run.
"""
import json, os, tempfile
from dataclasses import replace
from pathlib import Path
if __name__=='__main__': os.environ.setdefault('TQDM_DISABLE', '1')      # read when tqdm is imported
import numpy as np, pandas as pd
from jobs import begin, in_turn, name_of, parser
from u1nb.core import Results
from u1nb.stats import bootstrap
from u1nb.data import images, shifted
from u1nb.models import bottlenecks, calibrate_bn, pretrained
from u1nb.extract import Collect, observe
from u1nb.energy import concentration, energy_density
from u1nb.angle import class_bias, order_parameter
from u1nb.memory import pool
from u1nb.loss import similar_angles
from u1nb.train import restore, transform_of
from u1nb.trials import Arm, Task, head_share, newborn, paired, standard_arms, task

# ---- padding from birth

PADDINGS,NETS = ('zeros','reflect','circular'),('resnet8','fastnet_small')
PADDING = dict(cpu=dict(n=10_000, test=5_000, seen=2_000, epochs=8, seeds=5, batch=128, small=True),
               whole=dict(n=None, test=None, seen=10_000, epochs=16, seeds=20, batch=512, small=False))

def padding_jobs(how):
    "Seed by seed: both networks, three paddings, with and without shifts"
    return [dict(seed=s, model=m, padding=p, shifted=moved) for s in range(how['seeds'])
            for m in NETS for moved in (False,True) for p in PADDINGS]

def padding_data(how):
    "The task, and pictures of its test split to look at, as photographed and shifted"
    t,seen = task('cifar10_jpeg', 32, how['n'], how['test']),images('cifar10_jpeg', 'test', n=how['seen'])
    return t, dict(photographed=seen, shifted=shifted(seen)), images('cifar10_jpeg', 'train', n=256, seed=7)

def padding_run(job, data, how, line, device=None):
    "Train one network, and measure it beside what it was before"
    t,places,spare = data
    t = replace(t, translate=t.size//2 if job['shifted'] else 0)
    with tempfile.TemporaryDirectory() as tmp:
        rows = paired([Arm('onehot')], [job['seed']], t, model=job['model'], padding=job['padding'],
            epochs=how['epochs'], batch_size=how['batch'], precision='bf16', memory=True, small=how['small'],
            phase='padding', runs=tmp, device=device, progress=False, command_line=line)
        net,transform,_ = restore(next(Path(tmp).rglob('run.safetensors')))
    rows = [dict(r, shifted=job['shifted']) for r in rows]
    of = dict(model=job['model'], data=t.name, seed=job['seed'], trained_padding=job['padding'], shifted=job['shifted'])
    of |= dict(n_train=len(t.train), epochs=how['epochs'], device=rows[0]['device'], command=line)
    rows += measured(net, transform, places, weights='trained', **of)
    if job['shifted']: rows += untrained(job, data, how, of)         # before training the two are the same
    return [dict(r, job=name_of(job)) for r in rows]

def untrained(job, data, how, of):
    "Rows of the network that a run starts from"
    t,places,spare = data
    batches = t.batches(t.train, how['batch'], job['seed'])
    transform = transform_of(batches.mean, batches.std, batches.size, batches.resize)
    fresh = calibrate_bn(newborn(job['model'], t.train, batches, job['seed'], job['padding']), spare, transform)
    return measured(fresh, transform, places, weights='random', **dict(of, shifted=None))

def kappa(acts): return concentration(energy_density(acts), .5)
def z_of(acts): return order_parameter(energy_density(acts))

def measured(net, transform, places, **of):
    "Rows of κ(½), |mean z|, its upward part and ω² at the bottleneck; intervals over pictures"
    res,layer = Results(None),bottlenecks(net, 32)[-1]
    for place,pictures in places.items():
        seen = observe(net, pictures, layer, Collect(kappa=kappa, z=z_of, map=energy_density), transform=transform)
        k,z,p = (getattr(seen, o)[layer.key] for o in ('kappa','z','map'))
        ok,more = ~np.isnan(k),dict(of, layer=layer.key, placement=place, groups='picture')
        xy = np.stack([z.real, z.imag], 1)[ok]
        def add(key, v, **cols): res.add('C1' if key=='kappa' else 'C4', key, v, reading='born', **cols, **more)
        add('kappa', bootstrap(k[ok], n_boot=500), map=np.nanmean(p*p[0].size, 0).round(4), left_out=int((~ok).sum()))
        add('mean_z', bootstrap(xy, n_boot=500, stat=lambda m: np.hypot(m[...,0], m[...,1])))
        add('mean_z.y', bootstrap(xy[:,1], n_boot=500))
        b = class_bias(z[ok], np.asarray(pictures.labels)[ok], n_perm=199)
        add('omega2', b.omega2_interval, symmetry=b.symmetry)
    return list(res)

# ---- U(1) where it could show

WEIGHTS,CHOICE = (.1,.3,1.,3.),(1000,1001)
U1 = dict(cpu=dict(model='fastnet_small', seeds=30, batch=64, small=True,
                   tasks=dict(cifar10=(5_000, 5_000, 8), mammals=(None, None, 24), caltech101=(None, None, 16),
                              lookalikes=(None, None, 80))),
          whole=dict(model='resnet18', seeds=20, batch=256, small=False,
                   tasks=dict(cifar10=(None, None, 16), mammals=(None, None, 60), caltech101=(None, None, 60),
                              lookalikes=(None, None, 100))))
FEW = (5,10,25)              # labels a class
UNASKED = 6                  # seeds of a task on which the head learned at no weight
#: arms that are asked more than their accuracy, and with few labels
MAIN = ('onehot','onehot+u1','onehot+u1:random','onehot+smoothing','onehot+sample','onehot+simplex')

#: a task's pictures, and the network whose angles C4 measured on them
SOURCES = dict(cifar10=('cifar_resnet20','cifar10_jpeg'), mammals=('mobilenet_v2','tiny_imagenet'),
               caltech101=('mobilenet_v2','caltech101'), lookalikes=('mobilenet_v2','caltech101'))

def mammals(names):
    "The first twenty land mammals of Tiny-ImageNet by WordNet number: dogs, cats, a bear, hoofed animals, an ape"
    return [n for n in names if 'n02085620'<=n<='n02132136' or 'n02364673'<=n<='n02480495'][:20]

#: the five pairs of Caltech-101 that Lazebnik, Schmid & Ponce (CVPR 2006) confused most
LOOKALIKES = ('ketch','schooner', 'lotus','water_lilly', 'crocodile','crocodile_head', 'crayfish','lobster',
              'flamingo','ibis')

def only(pictures, names):
    "The pictures of these classes, numbered anew"
    at = {pictures.classes.index(n):k for k,n in enumerate(names)}
    i = np.flatnonzero(np.isin(pictures.labels, list(at)))
    some = pictures.rows(i, [at[y] for y in pictures.labels[i].tolist()])
    return replace(some, classes=list(names))

def u1_task(name, how):
    "A task, at 32 pixels"
    n,n_test,_ = how['tasks'][name]
    t = task(SOURCES[name][1], 32, n, n_test)
    if name not in ('mammals','lookalikes'): return t
    names = mammals(t.train.classes) if name=='mammals' else LOOKALIKES
    return Task(name, only(t.train, names), only(t.test, names), t.flip, t.translate, t.size)

def angles_of(name, t, n=20):
    "Angles of the classes: those that C4 measured on a pre-trained network, and even ones in order of likeness"
    model,data = SOURCES[name]
    folder = Path(__file__).parents[1]/'nbs/results/51_pretrained_angle'
    stored = Results.load(folder/f'{model}-{data.removesuffix("_jpeg")}.jsonl')
    r = [r for r in stored.where(key='class_directions') if 'class_angle' in r][-1]
    by = dict(zip(r['class_class'], r['class_angle']))
    net,transform = pretrained('mobilenet_v2')
    some = images(data, 'train', n=None)
    keep = np.concatenate([np.flatnonzero(some.labels==some.classes.index(c))[:n] for c in t.train.classes])
    how = dict(transform=transform, device='cpu')       # a GPU that was used here would be closed to forked processes
    seen = observe(net, some.rows(keep), 'features', Collect(pooled=pool), **how)
    y = np.array([t.train.classes.index(some.classes[k]) for k in some.labels[keep]])
    return dict(measured=[by[c] for c in t.train.classes], similar=similar_angles(seen.pooled['features'], y).tolist())

def u1_data(how, out):
    "Tasks and their angles, which are kept beside the rows"
    tasks,file = {k:u1_task(k, how) for k in how['tasks']},Path(out)/'angles.json'
    there = json.loads(file.read_text()) if file.exists() else {}
    angles = {k:there.get(k) or angles_of(k, t) for k,t in tasks.items()}
    file.write_text(json.dumps(angles))
    return tasks,angles

def all_arms(weight, angles):
    "The standard arms, and U(1) with measured angles, with angles in order of likeness, and read in the image plane"
    arms = standard_arms(weight)
    more = [Arm(f'onehot+u1:{k}', weight, scheme=k, angles=tuple(a)) for k,a in angles.items()]
    return arms+more+[Arm('onehot+u1:image', weight, where='image')]

def screen_jobs(how):
    "U(1), and the simplex that says how much a head of this weight can learn"
    one = [dict(task=k, phase='screen', seed=s, arm='onehot', weight=0.) for k in how['tasks'] for s in CHOICE]
    return one+[dict(task=k, phase='screen', seed=s, arm=a, weight=w) for k in how['tasks'] for w in WEIGHTS
                for s in CHOICE for a in ('onehot+u1','onehot+simplex')]

def chosen(rows):
    "The weight at which the head learns on most tasks and, of these, U(1) validates best; and where each weight learns"
    d = pd.DataFrame(rows)
    learns = head_share(d, ('weight','task'))>=.5
    most = learns.groupby('weight').sum()
    value = d[d.arm=='onehot+u1'].groupby(['weight','task']).value.mean().groupby('weight').sum()
    return float(value[most==most.max()].idxmax()), {w:[k for k in d.task.unique() if learns[w,k]] for w in most.index}

def confirm_jobs(how, best, at):
    "Seed by seed: all arms on every task (a few seeds where the head learned at no weight), then few labels"
    asked = set().union(*at.values())
    arms = [a.name for a in all_arms(1., dict(measured=(), similar=()))]
    for s in range(how['seeds']):
        for k in how['tasks']:
            if k not in asked and s>=UNASKED: continue
            for a in arms: yield dict(task=k, phase='confirm', seed=s, arm=a, weight=best)
        for n in FEW:
            for a in MAIN: yield dict(task='cifar10', phase=f'few {n}', seed=s, arm=a, weight=best, per_class=n)

def u1_run(job, data, how, line, device=None):
    "The row of one run"
    tasks,angles = data
    t,few = tasks[job['task']],job.get('per_class')
    arm = next(a for a in all_arms(job['weight'] or 1., angles[job['task']]) if a.name==job['arm'])
    more = job['phase']=='confirm' and job['arm'] in MAIN
    rows = paired([arm], [job['seed']], t, model=how['model'], epochs=60 if few else how['tasks'][job['task']][2],
        batch_size=25 if few else how['batch'], precision='bf16', phase=job['phase'], held=.2*(job['phase']=='screen'),
        per_class=few, corrupt=more, curve=500*more, small=how['small'], device=device, progress=False,
        command_line=line)
    return [dict(r, task=job['task'], job=name_of(job)) for r in rows]

def main(stage, out, minutes=60., processes=2, whole=False, device=None):
    (out,until),which,more = begin(out, minutes),'whole' if whole else 'cpu','-whole'*whole
    line = f'U1NB_DATA=data python bench/trained.py {stage} --out nbs/results/{out.name}{" --whole"*whole}'
    def stage_of(name, jobs, run): return in_turn(jobs, run, args, out/f'runs-{name}{more}.jsonl', until, processes)
    if stage=='padding':
        how = PADDING[which]
        args = padding_data(how),how,line,device
        args[0][0].train.digest(), args[0][0].train.moments()              # once, for all processes
        stage_of('born', padding_jobs(how), padding_run)
        return
    how = U1[which]
    args = u1_data(how, out),how,line,device
    for t in args[0][0].values(): t.train.digest(), t.train.moments()
    rows,done = stage_of('screen', screen_jobs(how), u1_run)
    if not done: return
    best,at = chosen(rows)
    print(f'weight {best:g}; the head learns at {at}', flush=True)
    stage_of('confirm', list(confirm_jobs(how, best, at)), u1_run)

if __name__=='__main__':
    p = parser(__doc__)
    p.add_argument('stage', choices=('padding','u1'))
    p.add_argument('--whole', action='store_true', help='all training pictures, more epochs and seeds, for a GPU')
    main(**vars(p.parse_args()))
