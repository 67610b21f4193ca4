"The smallest of each kind of network that 57 to 59 train, for a few steps; and the script that trains them goes on where it was cut"
import importlib.util, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, torch
from u1nb.core import Results
from u1nb.data import images
from u1nb.models import bottlenecks
from u1nb.nets import build
from u1nb.padding import padded_convs
from u1nb.rules import FAMILIES
from u1nb.train import restore
from u1nb.trials import Arm, newborn, paired, task

ROOT = Path(__file__).parents[1]

def bench(name):
    "A script of bench/, as a module"
    if (here:=str(ROOT/'bench')) not in sys.path: sys.path.append(here)
    spec = importlib.util.spec_from_file_location(f'bench_{name}', ROOT/f'bench/{name}.py')
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)
    return mod
trained,trials = bench('trained'),bench('trials')

@pytest.fixture(scope='module')
def digits(): return task('digits', 32, n=96, n_test=64)

@pytest.mark.parametrize('padding', trained.PADDINGS)
def test_born(digits, padding):
    "A network that grows up with a padding keeps it, and is measured with it"
    how = dict(epochs=1, batch=32, small=True)
    some = images('digits').take(40)
    data = digits,dict(photographed=some, shifted=trained.shifted(some)),images('digits').take(16)
    job = dict(seed=0, model='resnet8', padding=padding, shifted=True)
    rows = trained.padding_run(job, data, how, 'a command', 'cpu')
    assert {r['trained_padding'] for r in rows}=={padding} and rows[0]['translate']==16
    kappa = [r for r in rows if r['key']=='kappa']
    assert {(r['weights'],r['placement']) for r in kappa}=={(w,p) for w in ('trained','random') for p in ('photographed','shifted')}
    assert all(r['n']==40 and .3<r['value']<3 and r['lo']<=r['value']<=r['hi'] for r in kappa)
    net = build('resnet8', 10, padding=padding)
    kinds = {m.padding_mode for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.padding!=(0,0)}
    assert kinds=={padding} and len(padded_convs(net, 32))==7

def test_newborn(digits, tmp_path):
    "The untrained twin of a run is where the run starts: its first layer, which stays as it is, is the run's"
    how = dict(model='fastnet_small', epochs=1, batch_size=32, small=True, progress=False)
    paired([Arm('onehot')], [3], digits, runs=tmp_path, device='cpu', **how)
    trained_net,_,_ = restore(next(tmp_path.rglob('run.safetensors')))
    twin = newborn('fastnet_small', digits.train, digits.batches(digits.train, 32, 3), 3)
    assert torch.equal(twin.whiten.weight, trained_net.whiten.weight)
    assert not torch.equal(twin.whiten.weight, build('fastnet_small', 10, 32, 3).whiten.weight)

@pytest.mark.parametrize('name,bottleneck', [('vgg11_bn',(512,2,2)), ('resnet18',(512,4,4)), ('densenet22',(69,8,8))])
def test_families(digits, name, bottleneck):
    "Each of 58's families takes a few steps, and its bottleneck is found"
    row, = paired([Arm('onehot')], [0], digits, model=name, epochs=1, batch_size=48, precision='bf16', device='cpu')
    assert np.isfinite(row['nll']) and not row['diverged']
    layer = bottlenecks(build(name, 10), 32)[-1]
    assert (layer.channels,layer.height,layer.width)==bottleneck and name in FAMILIES

def test_arms(digits):
    "Every arm of 59 learns: angles as measured, in order of likeness, in the image plane, and the controls"
    angles = dict(measured=np.linspace(-3, 3, 10).tolist(), similar=np.linspace(-2, 2, 10).tolist())
    how = dict(model='fastnet_small', batch=32, small=True, tasks=dict(digits=(None,None,1)))
    arms = [a.name for a in trained.all_arms(1., angles)]
    assert len(arms)==11
    for a in arms:
        job = dict(task='digits', phase='confirm', seed=0, arm=a, weight=1.)
        row, = trained.u1_run(job, (dict(digits=digits),dict(digits=angles)), how, 'a command', 'cpu')
        assert row['arm']==a and (len(row['curve'])==1 and 0<=row['accuracy_blur']<=1 if a in trained.MAIN else 'curve' not in row)
        if a.endswith(('measured','similar')): assert row['scheme']==a.partition(':')[2] and row['accuracy_u'] is not None

def test_given_angles():
    "The loss of an arm with angles of its own has these and no others"
    t = Arm('a', 1., scheme='measured', angles=(0.,1.,-2.)).loss(3, 10, 5).u1.targets
    assert torch.allclose(torch.atan2(t[:,1], t[:,0]).float(), torch.tensor([0.,1.,-2.]), atol=1e-6)

def test_weight():
    "One weight: where the head learns on most tasks, and of these the best on validation pictures"
    def row(k, arm, w, head, v):
        control = 'simplex' if arm.endswith('simplex') else None
        return dict(task=k, arm=arm, weight=w, accuracy_u=head, value=v, control=control, scheme='even',
                    where='feature', claim='runs', seed=0)
    rows = []
    for w,(head,v) in {.1:(.2,.9), .3:(.4,.8), 1.:(.5,.85), 3.:(.1,.95)}.items():
        for k in ('a','b'): rows += [row(k, 'onehot+u1', w, head, v), row(k, 'onehot+simplex', w, .6, v)]
    best,at = trained.chosen(rows)
    assert best==1. and at=={.1:[], .3:['a','b'], 1.:['a','b'], 3.:[]}
    lost = [dict(r, accuracy_u=None) if (r['task'],r['weight'])==('b',1.) else r for r in rows]    # they diverged
    assert trained.chosen(lost)[1]=={.1:[], .3:['a','b'], 1.:['a'], 3.:[]}

def one_row(job, seconds):
    time.sleep(seconds)
    of = dict(claim='C1', reading='born', key='kappa', control='given', model='m', data='d')
    return [dict(of, value=job['seed'], job=trained.name_of(job))]

def test_goes_on(tmp_path):
    "What is there is not run again, and what was cut is"
    jobs,file = [dict(seed=s) for s in range(5)],tmp_path/'runs-x.jsonl'
    rows,done = trained.in_turn(jobs, one_row, (.3,), file, time.time()+.5, 2)
    assert not done and 0<len(rows)<5
    rows,done = trained.in_turn(jobs, one_row, (0,), file, time.time()+60, 2)
    assert done and sorted(r['value'] for r in rows)==[0,1,2,3,4] and not list(tmp_path.glob('*.part'))
    before = file.read_bytes()
    assert trained.in_turn(jobs, one_row, (0,), file, time.time()+60, 2)[1] and file.read_bytes()==before

def test_mammals():
    "Twenty classes by WordNet number, no insect among them"
    names = [f'n{k:08d}' for k in (1443537, 2085620, 2094433, 2132136, 2165456, 2364673, 2480495, 2481823)]
    assert trained.mammals(names)==['n02085620','n02094433','n02132136','n02364673','n02480495']

def fails(job): raise RuntimeError('no network')

def test_a_process_that_fails_is_said(tmp_path):
    with pytest.raises(SystemExit, match='1 processes failed'):
        trained.in_turn([dict(seed=0)], fails, (), tmp_path/'runs-x.jsonl', time.time()+60, 1)

def test_trials_know_their_rows(digits):
    "Each stored row of 54 is one of the script's jobs, so that it is not run again; and a job gives a row of its name"
    stored = {p:Results.load(ROOT/f'nbs/results/54_whole_cifar10/runs-{p}.jsonl') for p in ('rates','screen','confirm')}
    lr,weight = stored['confirm'][0]['lr'],max(r['weight'] for r in stored['confirm'])
    jobs = dict(rates=trials.rate_jobs(), screen=trials.screen_jobs(lr), confirm=trials.confirm_jobs(lr, weight, 100))
    for phase,rows in stored.items():
        assert {trials.named(r) for r in rows} <= {trials.named(j) for j in jobs[phase]}
    common = dict(model='fastnet_small', epochs=1, batch_size=32, small=True, device='cpu')
    for job in (jobs['screen'][0], jobs['confirm'][-1]):
        row, = trials.one(job, digits, common)
        assert trials.named(row)==trials.named(job) and row['phase']==job['phase']

def test_confirmation():
    "Tasks on which the head learned get all seeds, the others a few; few labels get all"
    how = dict(tasks=dict(a=0, b=0), seeds=10)
    jobs = list(trained.confirm_jobs(how, 1., {.1:[], 1.:['b']}))
    def seeds(**of): return {j['seed'] for j in jobs if all(j[k]==v for k,v in of.items())}
    assert seeds(task='a')==set(range(trained.UNASKED)) and seeds(task='b')==seeds(phase='few 5')==set(range(10))

def test_cut_parts(tmp_path):
    "A file that was cut within a row is mended, and a part that was taken in already is not taken in twice"
    jobs,file = [dict(seed=s) for s in range(3)],tmp_path/'runs-x.jsonl'
    trained.in_turn(jobs[:2], one_row, (0,), file, time.time()+60, 1)
    whole = file.read_text()
    (tmp_path/'runs-x.1-00000.part').write_text(whole)
    file.write_text(whole[:-40])
    with pytest.warns(UserWarning, match='half a row'):
        rows,done = trained.in_turn(jobs, one_row, (0,), file, time.time()+60, 1)
    assert done and sorted(r['value'] for r in Results.load(file))==[0,1,2]

def test_experiments():
    "The script that runs them all names scripts and options that are there"
    for gpu in (False,True):
        for words in bench('experiments').steps(gpu, 2):
            name = next(w for w in words if w.endswith('.py'))
            assert (ROOT/name).exists()
            if '--out' in words:
                line = [sys.executable, *words, '--minutes', 'none']
                p = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
                assert p.returncode==2 and "invalid float value: 'none'" in p.stderr and '--out' in p.stderr, p.stderr
