"Training: in two processes, through launchers and trackers; what kills leave is in hostile/test_kills.py"
import os, shutil, subprocess, sys, textwrap
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from u1nb.core import Results
from u1nb.data import images
from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
from u1nb.nets import build
from u1nb.train import Pictures, Resident, Streamed, decode, fit, restore
from u1nb.trials import Arm, differences, gains, paired, plot_forest, standard_arms, summary, task, train
ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'TQDM_DISABLE':'1', 'CUDA_VISIBLE_DEVICES':''}

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

COMMAND = textwrap.dedent("""
    from fastcore.script import anno_parser
    from u1nb.trials import train
    train(**{k:v for k,v in vars(anno_parser(train).parse_args()).items() if k not in ('pdb','xtra')})
    """)
ARGS = ('--data','imagenet','--model','fastnet_small','--size','32','--seeds','1','--epochs','2','--batch-size','8','--workers','1','--device','cpu')
LAUNCH = ['accelerate.commands.launch','--multi_gpu','--num_processes','2','--num_machines','1','--mixed_precision','no',
          '--dynamo_backend','no','--main_process_port']

def test_two_processes_on_imagenets_layout(imagenet, tmp_path, free_port):
    "The command whose options are the docments of `train`"
    script = tmp_path/'command.py'
    script.write_text(COMMAND)
    where = ['--root',str(imagenet),'--out',str(tmp_path/'two.jsonl'),'--runs',str(tmp_path/'runs')]
    p = subprocess.run([sys.executable, '-m', *LAUNCH, free_port, str(script), *ARGS, *where], env=ENV, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert p.returncode==0, p.stderr[-3000:]
    rows = Results.load(tmp_path/'two.jsonl')
    assert [r['arm'] for r in rows]==['onehot','onehot+u1'] and all(r['n_eval']==15 for r in rows)
    assert 'onehot+u1' in p.stdout
    files = sorted((tmp_path/'runs').glob('*/run.safetensors'))
    assert len(files)==2 and restore(files[0])[2]['told']['processes']==2, 'the launcher started one process only'
    assert all(r['n_train']==36 and r['data']=='imagenet' for r in rows)

def test_trackers_compile_precision(tmp_path):
    pytest.importorskip('tensorboard')
    a,b = decode(images('digits', n=200), 8).hold_out(.3)
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
            from u1nb.nets import build
            from u1nb.train import Resident, decode, fit
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
    rows = paired(standard_arms(.1), range(2), t, model='fastnet_small', epochs=2, batch_size=64, device='cpu', progress=False, out=tmp_path/'r.jsonl')
    s = summary(rows)
    assert len(s)==8 and (s.n==2).all()
    rows = paired(standard_arms(.1, where='image'), [0], t, model='fastnet_small', epochs=1, batch_size=64, device='cpu', progress=False)
    assert {r['where'] for r in rows if r['weight']}=={'image'} and not {'directions','simplex'} & {r['control'] for r in rows}

TWO = textwrap.dedent('''
    import os, sys, torch
    from torch import nn
    from u1nb.train import Diverged, Pictures, Resident, fit
    rank = int(os.environ['RANK'])
    x = torch.arange(17, dtype=torch.uint8)[:,None,None,None].expand(17, 1, 1, 3).contiguous()
    data = Pictures(x, torch.arange(17)%2, ['even','odd'])
    batches,got = Resident(data, 8),[]
    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        def forward(self, x):
            if self.training: got.extend(x[:,0,0,0].tolist())
            return self.net(x)
    model = Watch()
    fit(model, batches, epochs=1, device='cpu', progress=False)
    a = [int(o) for o in torch.tensor(got).mul(batches.std[0]).add(batches.mean[0]).mul(255).round()]
    b = [None,None]
    torch.distributed.all_gather_object(b, a)
    assert len(set(b[0])&set(b[1]))==0 and len(b[0])==len(b[1])==8, b                       # sixteen of seventeen, none twice
    s = [None,None]; torch.distributed.all_gather_object(s, [o.tolist() for o in model.buffers()])
    assert s[0]==s[1], s                                                                     # one batch norm for all
    f = fit(model, batches, Resident(data, 8, like=batches), epochs=1, out=sys.argv[1], track='tensorboard', device='cpu', progress=False)   # a tracker leaves the processes together
    assert f.scores.n==17
    class Bad(nn.Module):
        def forward(self, out, y): l = nn.functional.cross_entropy(out, y); return l*float('nan') if rank==1 else l
    try: fit(model, batches, None, Bad(), epochs=1, device='cpu', progress=False)
    except Diverged: print('both stopped')
    ''')

def test_processes_share_pictures_statistics_and_errors(tmp_path):
    (tmp_path/'two.py').write_text(TWO)
    p = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', str(tmp_path/'two.py'), str(tmp_path/'run')], env=ENV, capture_output=True, text=True, timeout=120)
    assert p.returncode==0 and p.stdout.count('both stopped')==2, p.stdout+p.stderr[-3000:]

def test_restored_networks_see_what_they_were_judged_on(tmp_path, imagenet):
    "Crops, streamed pictures, a head on another layer"
    pics = images(str(imagenet), 'valid')
    def check(out, batches, size, **head):
        net = build('resnet20', 3, size)
        if head: attach_u1(net, size=size, **head)
        loss = OneHotU1Loss(class_angles(3), .1) if head else None
        fit(net, batches, None, loss, epochs=1, out=out, device='cpu', progress=False)
        back,transform,_ = restore(out)
        like = Resident(decode(pics, batches.resize), 64, like=batches) if isinstance(batches, Resident) else Streamed(pics, 64, like=batches, workers=0)
        x,want = torch.stack([transform(pics[i][0]) for i in range(len(pics))]),next(like.epoch()).x
        assert (x-want).abs().max()<1e-5
        if head: assert torch.allclose(back(x, u1=True)[1], net.eval()(x, u1=True)[1], rtol=1e-4)
        assert torch.allclose(back(x), net.eval()(x), rtol=1e-4)
    train = images(str(imagenet), 'train')
    check(tmp_path/'crop', Resident(decode(train, 40), 12, crop=32), 32)
    check(tmp_path/'stream', Streamed(train, 12, 32, workers=0), 32)
    check(tmp_path/'layer', Resident(decode(train, 32), 12), 32, layer='layer3.0')

def test_other_settings_are_other_runs(tmp_path):
    "Neither a row nor a checkpoint of other pictures, labels or settings is taken for this one's"
    t,out = task('digits', n=300, n_test=200),tmp_path/'r.jsonl'
    def run(t=t, **k): return paired([Arm('onehot')], np.arange(1), t, model='fastnet_small', epochs=1, batch_size=64, device='cpu', progress=False, **{**dict(out=out, runs=tmp_path/'runs'), **k})[0]
    first = run()
    assert run()==first and len(Results.load(out))==1
    others = [run(label_noise=.5), run(per_class=13), run(per_class=25), run(t=task('digits', n=300, n_test=50)), run(t=task('digits', n=300, n_test=200, seed=5)), run(t=replace(t, flip=True)), run(memory=True), run(lr=np.float32(.2))]
    assert len(Results.load(out))==1+len(others) and others[6]['memory'] is not None and others[6]['value']==first['value']
    fresh = run(label_noise=.5, out=None, runs=None)
    assert fresh['value']==others[0]['value'] and fresh['nll']==others[0]['nll']
    a,b = (decode(images('digits', n=100), 8) for _ in range(2))
    b.y = b.y.flip(0)
    fit(build('fastnet_small', 10, 8), Resident(a, 50), epochs=1, out=tmp_path/'f', device='cpu', progress=False)
    for net,data,loss in ((build('fastnet_small', 10, 8), Resident(b, 50), None), (build('fastnet_small', 10, 8, seed=1), Resident(a, 50), None), (build('fastnet_small', 10, 8), Resident(a, 50), torch.nn.CrossEntropyLoss(label_smoothing=.1))):
        with pytest.raises(ValueError, match='is a run with'): fit(net, data, None, loss, epochs=1, out=tmp_path/'f', device='cpu', progress=False)

def test_what_cannot_be_trained_is_said(tmp_path):
    d = decode(images('digits', n=40), 8)
    def refused(kind, why, f, *args, **kw):
        with pytest.raises(kind, match=why): f(*args, **kw)
    refused(ValueError, 'bytes .N,S,S,C.', Pictures, torch.zeros(2, 8, 12, 3, dtype=torch.uint8), [0,1], ['a','b'])
    refused(ValueError, 'decode at the same size', Resident, decode(images('digits', n=9), 12), like=Resident(d))
    net = build('fastnet_small', 10, 8)
    refused(TypeError, 'Resident or Streamed, not Pictures', fit, net, d, device='cpu')
    refused(TypeError, 'aux_logits=False', fit, build('googlenet', 10, 64), Resident(decode(images('digits', n=9), 64), 4), epochs=1, device='cpu', progress=False)
    refused(ValueError, 'sgd or adamw, not lion', fit, net, Resident(d), optimizer='lion')
    refused(ValueError, 'no, bf16 or fp16', fit, net, Resident(d), precision='fp8')
    refused(TypeError, 'unexpected keyword', fit, net, Resident(d), learning_rate=.1)
    (tmp_path/'run.safetensors').write_bytes(b'cut off')
    refused(ValueError, 'cannot be read', fit, net, Resident(d), epochs=1, out=tmp_path, device='cpu')
    assert not Streamed(images('digits', n=9), 4, 32, 0, flip=False).flip and task('digits', 32, stream=True).batches(images('digits'), 8, 0, 0).flip is False
    a,b = d.hold_out(.9)
    assert set(a.y.tolist())==set(d.y.tolist())

def test_stored_runs_are_not_run_again(tmp_path, monkeypatch):
    "The rows of 53_from_scratch on digits are those that `paired` would write"
    stored = Path(__file__).parents[1]/'nbs/results/53_from_scratch/runs-confirm-digits.jsonl'
    out = tmp_path/stored.name
    shutil.copy(stored, out)
    def ran(*a, **k): raise AssertionError('a run that is there was run again')
    monkeypatch.setattr('u1nb.trials._run', ran)
    how = dict(model='fastnet_small', epochs=20, batch_size=64, precision='bf16', memory=True, progress=False)
    rows = paired(standard_arms(.03), range(30), task('digits'), out=out, **how)
    assert list(rows)==list(Results.load(stored))
    monkeypatch.undo()
    new = paired([Arm('onehot')], [0], task('digits'), **{**how,'epochs':1})[0]
    assert set(new)-{'rules','trained_padding'}==set(rows[0])-{'crop'} and new['pictures']==rows[0]['pictures']

def test_views_of_one_photograph_train_or_judge():
    d = decode(images('photos', 'shifted', n=30).relabelled(np.zeros(30)), 16)
    for share in (.2,.5):
        a,b = d.hold_out(share)
        assert len(a)+len(b)==30 and not set(a.groups)&set(b.groups) and len(b)

def test_rows_that_are_no_pairs_and_forests_of_claims():
    def run(arm, seed, value, **more): return dict(claim='runs', data='digits', model='m', optimizer='sgd', arm=arm, seed=seed, value=value, diverged=False, seconds=1., **more)
    rows = [run(a, s, .9+.01*(a!='onehot')*s) for s in range(3) for a in ('onehot','onehot+u1')]
    for bad,why in (([*rows, rows[0]], 'seed 0 of onehot stands twice'), ([dict(r, lr=.1*(1+(r['seed']>1))) for r in rows], 'lr is 0.1, 0.2 in one cell'),
                    ([r for r in rows if r['arm']!='onehot'], 'no runs of arm onehot; there are onehot.u1'), ([], 'no rows of runs')):
        with pytest.raises(ValueError, match=why): differences(bad, 'onehot+u1')
    with pytest.raises(ValueError, match='no column nll'): summary(rows, value='nll')
    gain, = gains(rows)
    assert gain['value']==pytest.approx(.01) and gain['n']==3
    claim = Results.load(Path(__file__).parents[1]/'nbs/results/53_from_scratch/claims.jsonl')
    some = [r for r in claim if r['claim']=='C7' and not r['demo'] and r['key']=='gain.pooled' or r['claim']=='C7' and r['key']=='gain' and r['against']=='onehot']
    ax = plot_forest(some)
    assert 'all tasks, pooled' in [o.get_text() for o in ax.get_yticklabels()] and len(ax.texts)==len(some)
    assert 'over onehot+simplex' in [o.get_text() for o in ax.get_legend().get_texts()]

def test_words_of_the_command():
    for wrong,why in ((dict(data='no-such'), 'size in pixels'), (dict(data='digits', model='resnet2O'), 'did you mean'), (dict(data='digits', seeds='0'), 'seeds are a number')):
        with pytest.raises(ValueError, match=why): train(**wrong, out=None)

@pytest.mark.parametrize('name', ('sgd','adamw'))
def test_fused_steps_are_the_plain_ones(name):
    "On a CPU the optimiser is fused; after five steps its weights are those of torch's plain loop"
    from u1nb.train import _optimizer, recipe
    a,b = (build('resnet8', 10, 32).to(memory_format=torch.channels_last) for _ in range(2))
    how = recipe(optimizer=name)
    fused = _optimizer(how, a)
    assert all(g['fused'] for g in fused.param_groups)
    groups = [dict(params=[p for p in b.parameters() if (p.ndim>1)==many], weight_decay=how['weight_decay']*many) for many in (True,False)]
    plain = torch.optim.AdamW(groups, how['lr']) if name=='adamw' else torch.optim.SGD(groups, how['lr'], momentum=.9, nesterov=True)
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        a.zero_grad()
        a(torch.randn(8, 3, 32, 32, generator=g).contiguous(memory_format=torch.channels_last)).logsumexp(1).sum().backward()
        for p,q in zip(a.parameters(), b.parameters()): q.grad = p.grad.clone()
        fused.step(); plain.step()
    for p,q in zip(a.parameters(), b.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
