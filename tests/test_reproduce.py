"What the repository says of the embedded data can be measured again"
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from u1nb.core import Results
from u1nb.claims import Study, c2
from u1nb.data import images
from u1nb.models import pretrained

ROOT = Path(__file__).parents[1]
STORED = ROOT/'nbs/results/50_pretrained_energy/mobilenet_v2-photos.jsonl'

def test_stored_row_again():
    "The concentration and the mean map of MobileNetV2 on the photographs, measured anew"
    rows = Results.load(STORED)
    old, = [r for r in rows if r['claim']=='C1' and r['statistic']=='κ(.5)' and r.get('clause')]
    net,tfm = pretrained('mobilenet_v2')
    s = Study(net, tfm, images('photos', n=old['pictures']), 'mobilenet_v2', 'photos', photographed=images('photos', 'as_photographed'))
    s.layers = s.layers[-1:]
    e = s.whole()
    assert s.bottleneck==old['layer'] and s.state==old['state']
    assert e.frame().kappa.mean()==pytest.approx(old['value'], rel=1e-3)
    np.testing.assert_allclose(e.mean().numpy(), np.array(old['map']), rtol=2e-3)

def test_command(tmp_path):
    "The command writes rows, figures and a page that needs nothing else"
    cmd = [sys.executable, '-c', 'from u1nb.claims import main; main()', '--claims','C2', '--n','14', '--cells','7', '--seeds','1', '--out',str(tmp_path/'r')]
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, env={**os.environ,'TQDM_DISABLE':'1'})
    assert p.returncode==0, p.stderr[-3000:]
    rows = Results.load(tmp_path/'r/rows.jsonl')
    assert {r['claim'] for r in rows}=={'C2'} and all(r['demo'] for r in rows)
    page = (tmp_path/'r/index.html').read_text(encoding='utf-8')
    assert page.count('src="data:image/png;base64,')==1 and 'src="http' not in page
    assert 'invariant share' in p.stdout

@pytest.mark.parametrize('args,says', [(['--model','mobilenet_v22'],'mobilenet_v2'), (['--data','nowhere_at_all'],'nowhere_at_all'), (['--claims','C77'],'C1')])
def test_command_says_what_is_wrong(args, says, tmp_path):
    p = subprocess.run([sys.executable, '-c', 'from u1nb.claims import main; main()', *args], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode not in (0, None) and says in p.stderr and 'Traceback' not in p.stderr

def test_stored_accuracy_again():
    "What a memory of half the digits says of the others, measured anew"
    import numpy as np
    from u1nb.data import halves
    from u1nb.extract import Collect, observe
    from u1nb.memory import Memory, pool
    rows = Results.load(ROOT/'nbs/results/52_pretrained_memory/mobilenet_v2-digits.jsonl')
    old, = [r for r in rows if r['statistic']=='accuracy' and r['control']=='trained']
    net,tfm = pretrained('mobilenet_v2')
    store,test = halves(images('digits', n=old['memory']+old['pictures'], seed=old['seed']), old['seed'])
    a,b = (observe(net, o, old['layer'], Collect(pooled=pool), transform=tfm).pooled[old['layer']] for o in (store,test))
    assert float(Memory().add(a, store.labels).score(b, test.labels).accuracy)==pytest.approx(old['value'], abs=1.5/len(test))

NET = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU(),
                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3))
"""

def test_probe(tmp_path):
    "One's own network as a checkpoint and one's own pictures in a folder: six claims and a page"
    import torch
    from safetensors.torch import save_file
    (tmp_path/'mynet.py').write_text(NET)
    ns = {}; exec(NET, ns); torch.manual_seed(0)
    save_file(ns['make']().state_dict(), tmp_path/'best.safetensors')
    ds = images('digits', n=200)
    for k in range(3):
        (tmp_path/f'pics/{k}').mkdir(parents=True)
        for i in [i for i,y in enumerate(ds.labels) if y==k][:10]: ds[i][0].resize((32,32)).save(tmp_path/f'pics/{k}/{i}.png')
    cmd = [sys.executable, '-c', 'from u1nb.claims import probe; probe()', '--model','best.safetensors', '--data','pics', '--size','32', '--seeds','1', '--cells','6', '--out','r']
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, env={**os.environ,'TQDM_DISABLE':'1'})
    assert p.returncode!=0 and '--arch' in p.stderr and 'Traceback' not in p.stderr      # weights alone name no architecture
    p = subprocess.run([*cmd, '--arch','mynet:make'], cwd=tmp_path, capture_output=True, text=True, env={**os.environ,'TQDM_DISABLE':'1'})
    assert p.returncode==0, p.stderr[-3000:]
    rows = Results.load(tmp_path/'r/rows.jsonl')
    assert {r['claim'] for r in rows if r['statistic']=='verdict'}=={f'C{i}' for i in range(1, 7)}
    assert {r['model'] for r in rows}=={'best'} and (tmp_path/'r/index.html').stat().st_size>50_000

def test_trained_claims_follow_from_their_runs():
    "C7 and C8 of rows of runs, asked again of those that are stored, say what the stored rows say"
    from u1nb.claims import TRAINED
    for f in (ROOT/'nbs/results').glob('53_*/claims.jsonl'):
        runs = [r for g in sorted(f.parent.glob('runs*.jsonl')) for r in Results.load(g)]
        for c,ask in TRAINED.items():
            old = Results.load(f).where(claim=c)
            if not old: continue
            said = old.where(statistic='verdict')[0]
            new = ask(runs, screen=None if said['screened'] else [], arm=said['arm'] if c=='C7' else None)
            assert new.where(statistic='verdict')[0]['cells']==said['cells'] and new.where(statistic='verdict')[0]['verdict']==said['verdict']
            key = lambda r: (r['statistic'], r['data'], r['model'], r['optimizer'], r.get('control'))
            assert {key(r):r.get('value') for r in new}==pytest.approx({key(r):r.get('value') for r in old})

def test_training_claims_on_digits(tmp_path, monkeypatch):
    "C7 and C8 without a network of the other claims: runs, rows, a page"
    from functools import partial
    from u1nb import claims
    monkeypatch.setattr(claims, '_digits_runs', partial(claims._digits_runs, seeds=2))
    monkeypatch.setattr(claims, 'network', None)          # is not asked for
    res = claims.reproduce(('C7','C8'), out=tmp_path/'r', device='cpu')
    runs = Results.load(tmp_path/'r/runs.jsonl')
    assert {(r['arm'],r['seed']) for r in runs}=={(a,s) for a in ('onehot','onehot+u1','onehot+u1:random') for s in (0,1)} and all(r['demo'] and r['small'] for r in runs)
    one = next(r for r in res if r['claim']=='C7' and r['control']=='onehot')
    by = {(r['arm'],r['seed']):r['value'] for r in runs}
    assert one['value']==pytest.approx(sum(by['onehot+u1',s]-by['onehot',s] for s in (0,1))/2)
    assert (tmp_path/'r/index.html').exists() and (tmp_path/'r/forest_C7.png').exists()
    assert {r['verdict'] for r in res if r['statistic']=='verdict'}<={'inconclusive','not supported','partly'}

def test_a_network_that_fit_trained(tmp_path):
    "Its file is enough for `u1nb-probe --model`"
    from u1nb.claims import network
    from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
    from u1nb.nets import build
    from u1nb.train import Resident, decode, evaluate, fit
    d = decode(images('digits'), 8)
    data,net = Resident(d, 64, seed=1),attach_u1(build('fastnet_small', 10, 8), size=8)
    f = fit(net, data, None, OneHotU1Loss(class_angles(10), .1), 3, out=tmp_path/'run', device='cpu', progress=False)
    got,transform,fresh = network(str(tmp_path/'run/run.safetensors'))
    pics = images('digits')
    x = torch.stack([transform(pics[i][0]) for i in range(200)])
    with torch.no_grad(): hits = (got(x).argmax(1)==d.y[:200]).float().mean()
    assert hits==pytest.approx(evaluate(f.model, Resident(d[:200], 200, like=data)).accuracy) and not hasattr(got, 'u1')
    assert not torch.equal(fresh(0).head.weight, got.head.weight)
