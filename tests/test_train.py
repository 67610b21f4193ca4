"Training: killed at random moments and resumed, in two processes, through launchers and trackers"
import json, os, random, signal, subprocess, sys, textwrap, time
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from u1nb.core import Results
from u1nb.data import images
from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
from u1nb.train import Arm, Resident, build, decode, fit, paired, restore, split, standard_arms, summary, task
ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'TQDM_DISABLE':'1', 'CUDA_VISIBLE_DEVICES':''}

RUN = textwrap.dedent('''
    import sys, torch
    from u1nb.data import images
    from u1nb.loss import *
    from u1nb.train import *
    d = decode(images('digits'), 8)
    net = attach_u1(build('fastnet_small', 10, 8, seed=1), size=8)
    fit(net, Resident(d, 32, translate=1, seed=1), None, OneHotU1Loss(class_angles(10), .1), 8, 'adamw', ema=.9, seed=1, out=sys.argv[1], device='cpu', progress=False)
    ''')

def _run(out, wait=None, check=True):
    p = subprocess.Popen([sys.executable, '-c', RUN, str(out)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if wait is None:
        o,e = p.communicate(timeout=120)
        assert p.returncode==0, e
        return
    file,t0 = out/'run.safetensors',time.time()
    while not file.exists() and p.poll() is None and time.time()-t0<60: time.sleep(.005)    # training has begun
    time.sleep(wait)
    p.send_signal(signal.SIGKILL); p.communicate()

def test_killed_runs_end_with_the_same_weights(tmp_path):
    _run(tmp_path/'whole')
    r,cut = random.Random(0),0
    for _ in range(4):                                  # at moments that no one chose
        _run(tmp_path/'killed', r.uniform(0, .8))
        from u1nb.train import _open
        cut += _open(tmp_path/'killed'/'run.safetensors')[1]['epoch']<8
    assert cut, 'no run was cut before its end; raise the number of epochs'
    _run(tmp_path/'killed')
    a,b = (restore(tmp_path/o) for o in ('whole','killed'))
    assert all(torch.equal(v, b[0].state_dict()[k]) for k,v in a[0].state_dict().items())
    same = lambda rows: [{k:v for k,v in r.items() if k not in ('seconds','pictures_per_second')} for r in rows]
    assert same(a[2]['rows'])==same(b[2]['rows']) and len(a[2]['rows'])==8
    assert sorted(o.name for o in (tmp_path/'killed').iterdir())==['epochs.jsonl','run.safetensors']

@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    "A folder in ImageNet's layout: train/WNID and val/WNID, pictures of several sizes"
    root,g = tmp_path_factory.mktemp('ILSVRC'),np.random.default_rng(0)
    for s,n in (('train',12),('val',5)):
        for k,w in enumerate(('n01440764','n02102040','n03000684')):
            (root/s/w).mkdir(parents=True)
            for i in range(n):
                a = g.integers(0, 120, (g.integers(40, 90), g.integers(40, 90), 3)); a[...,k] += 130
                Image.fromarray(a.astype(np.uint8)).save(root/s/w/f'{w}_{i}.JPEG', quality=90)
    return root

ARGS = lambda root, out: ['--data','imagenet','--root',str(root),'--model','fastnet_small','--size','32','--arms','onehot,onehot+u1','--seeds','1','--epochs','2','--batch-size','8','--workers','1','--device','cpu','--out',str(out)]

@pytest.mark.parametrize('launch', [['accelerate.commands.launch','--multi_gpu','--num_processes','2','--num_machines','1','--mixed_precision','no','--dynamo_backend','no','--main_process_port','0','--module','u1nb.train'],
                                    ['torch.distributed.run','--standalone','--nproc_per_node','2','-m','u1nb.train']], ids=['accelerate','torchrun'])
def test_two_processes_on_imagenets_layout(imagenet, tmp_path, launch):
    p = subprocess.run([sys.executable, '-m', *launch, *ARGS(imagenet, tmp_path/'two.jsonl'), '--runs', str(tmp_path/'runs')], env=ENV, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert p.returncode==0, p.stderr[-3000:]
    rows = Results.load(tmp_path/'two.jsonl')
    assert [r['arm'] for r in rows]==['onehot','onehot+u1'] and all(r['n_eval']==15 for r in rows)
    assert 'onehot+u1' in p.stdout
    files = sorted((tmp_path/'runs').glob('*/run.safetensors'))
    assert len(files)==2 and restore(files[0])[2]['told']['processes']==2, 'the launcher started one process only'
    if launch[0].startswith('torch.'):    # the same batches in one process give nearly the same weights (batch norm sees half of each batch)
        one = paired([Arm('onehot')], [0], task(str(imagenet), 32, stream=True), 'fastnet_small', 2, 8, runs=tmp_path/'one', workers=0, device='cpu', progress=False)
        assert one[0]['n_train']==rows[0]['n_train']==36

def test_trackers_compile_precision(tmp_path):
    pytest.importorskip('tensorboard')
    a,b = split(decode(images('digits', n=200), 8), .3)
    data = Resident(a, 32, seed=1)
    fit(build('fastnet_small', 10, 8), data, Resident(b, like=data), epochs=2, out=tmp_path/'tb', track='tensorboard', device='cpu', progress=False)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    file = next((tmp_path/'tb').rglob('events*'))
    ea = EventAccumulator(str(file)); ea.Reload()
    assert {'loss','valid_accuracy'} <= set(ea.Tags()['scalars']) and len(ea.Scalars('loss'))==2
    for p in ('bf16','no'):                                 # one after the other in one process
        f = fit(build('fastnet_small', 10, 8), data, Resident(b, like=data), epochs=1, precision=p, device='cpu', progress=False)
        assert next(f.model.parameters()).dtype==torch.float32 and 'forward' not in vars(f.model)

def test_notebook_launcher(tmp_path):
    code = textwrap.dedent(f'''
        import torch
        from accelerate import notebook_launcher
        def train():
            from u1nb.data import images
            from u1nb.train import Resident, build, decode, fit
            fit(build('fastnet_small', 10, 8), Resident(decode(images('digits', n=200), 8), 32), epochs=1, out={str(tmp_path/'nl')!r}, device='cpu', progress=False)
        if __name__=='__main__': notebook_launcher(train, num_processes=2)
        ''')
    (tmp_path/'nl.py').write_text(code)
    p = subprocess.run([sys.executable, str(tmp_path/'nl.py')], env={**ENV, 'ACCELERATE_USE_CPU':'true'}, capture_output=True, text=True, timeout=120)
    assert p.returncode==0, p.stderr[-3000:]
    meta = restore(tmp_path/'nl')[2]
    assert (meta['epoch'],meta['told']['processes'])==(1,2)

def test_every_arm_trains_and_is_summed_up(tmp_path):
    t = task('digits', n=300)
    rows = paired(standard_arms(.1), range(2), t, 'fastnet_small', epochs=2, batch_size=64, device='cpu', progress=False, out=tmp_path/'r.jsonl')
    s = summary(rows)
    assert len(s)==8 and (s.n==2).all()
    rows = paired(standard_arms(.1, where='image'), [0], t, 'fastnet_small', epochs=1, batch_size=64, device='cpu', progress=False)
    assert {r['where'] for r in rows if r['weight']}=={'image'} and not {'directions','simplex'} & {r['control'] for r in rows}
