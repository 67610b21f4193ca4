"What the repository says of the embedded data can be measured again"
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from u1nb.core import Results
from u1nb.cli import main, reproduce
from u1nb.data import images
from u1nb.models import pretrained
from u1nb.rules import judge_claim
from u1nb.study import Sets, Study, network

ROOT = Path(__file__).parents[1]
STORED = ROOT/'nbs/results/50_pretrained_energy/mobilenet_v2-photos.jsonl'

def test_stored_row_again():
    "The concentration and the mean map of MobileNetV2 on the photographs, measured anew"
    rows = Results.load(STORED)
    old = rows.one(claim='C1', key='kappa', control='uniform')
    s = Study(network('mobilenet_v2'), Sets(images('photos', n=old['pictures']), 'photos', images('photos', 'as_photographed')))
    s.layers = s.layers[-1:]
    e = s.whole()
    assert s.bottleneck==old['layer'] and s.state==old['state']
    assert e.frame().kappa.mean()==pytest.approx(old['value'], rel=1e-3)
    np.testing.assert_allclose(e.mean().numpy(), np.array(old['map']), rtol=2e-3)

def test_command(tmp_path):
    "The command writes rows, figures and a page that needs nothing else"
    cmd = [sys.executable, '-m', 'u1nb.cli', 'reproduce', '--claims','C2', '--size','96', '--pictures','14', '--cells','7', '--seeds','1', '--out',str(tmp_path/'r')]
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, env={**os.environ,'TQDM_DISABLE':'1'})
    assert p.returncode==0, p.stderr[-3000:]
    rows = Results.load(tmp_path/'r/rows.jsonl')
    assert {r['claim'] for r in rows}=={'C2'} and all(r['demo'] for r in rows)
    page = (tmp_path/'r/index.html').read_text(encoding='utf-8')
    assert page.count('src="data:image/png;base64,')==1 and 'src="http' not in page
    said = p.stdout.splitlines()
    assert sum(l.startswith('C2 ') for l in said)==1 and all(len(l)<=100 for l in said[:-1]) and len(said)<25 and 'index.html' in said[-1]
    at = next(i for i,l in enumerate(said) if l.startswith('C2 '))              # its number may stand below it
    assert next(l for l in said[at+1:] if l.startswith('   README')).startswith('   README: partly')
    assert 'share' in said[at]+said[at+1]
    assert 'passes' in said[0] and (tmp_path/'r/first_look.png').exists()

@pytest.mark.parametrize('args,says', [(['--model','mobilenet_v22'],'mobilenet_v2'), (['--data','nowhere_at_all'],'nowhere_at_all'), (['--claims','C77'],'C1')])
def test_command_says_what_is_wrong(args, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main('reproduce', args)
    assert e.value.code not in (0, None) and says in f'{e.value}{capsys.readouterr().err}'

def test_stored_accuracy_again():
    "What a memory of half the digits says of the others, measured anew"
    import numpy as np
    from u1nb.extract import Collect, observe
    from u1nb.memory import Memory, pool
    rows = Results.load(ROOT/'nbs/results/52_pretrained_memory/mobilenet_v2-digits.jsonl')
    old = rows.one(claim='C6', key='accuracy', control='given')
    net,tfm = pretrained('mobilenet_v2')
    store,test = images('digits', n=old['memory']+old['pictures'], seed=old['seed']).halves(old['seed'])
    a,b = (observe(net, o, old['layer'], Collect(pooled=pool), transform=tfm).pooled[old['layer']] for o in (store,test))
    assert float(Memory().add(a, store.labels).score(b, test.labels).accuracy)==pytest.approx(old['value'], abs=1.5/len(test))

NET = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU(),
                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3))
"""

def test_probe(tmp_path, monkeypatch, capsys):
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
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TQDM_DISABLE', '1')
    args = ['--model','best.safetensors', '--data','pics', '--size','32', '--seeds','1', '--cells','6', '--out','r']
    with pytest.raises(SystemExit) as e: main('probe', args)
    assert '--arch' in f'{e.value}{capsys.readouterr().err}'                            # weights alone name no architecture
    main('probe', [*args, '--arch','mynet:make'])
    said = capsys.readouterr().out
    rows = Results.load(tmp_path/'r/rows.jsonl')
    assert {r['claim'] for r in rows}=={f'C{i}' for i in range(1, 7)} and sum(l[:2] in {f'C{i}' for i in range(1, 7)} for l in said.splitlines())==6
    assert {r['model'] for r in rows}=={'best'} and (tmp_path/'r/index.html').stat().st_size>50_000

def test_training_claims_on_digits(tmp_path, monkeypatch):
    "C7 and C8 without a network of the other claims: runs, rows, a page"
    from functools import partial
    from u1nb import cli
    monkeypatch.setattr(cli, '_digits_runs', partial(cli._digits_runs, seeds=2))
    monkeypatch.setattr(cli, 'network', None)             # is not asked for
    res = reproduce(('C7','C8'), out=tmp_path/'r', device='cpu')
    runs = Results.load(tmp_path/'r/runs.jsonl')
    assert {(r['arm'],r['seed']) for r in runs}=={(a,s) for a in ('onehot','onehot+u1','onehot+u1:random') for s in (0,1)} and all(r['demo'] and r['small'] for r in runs)
    one = res.one(claim='C7', key='gain', control='onehot')
    by = {(r['arm'],r['seed']):r['value'] for r in runs}
    assert one['value']==pytest.approx(sum(by['onehot+u1',s]-by['onehot',s] for s in (0,1))/2)
    assert (tmp_path/'r/index.html').exists() and (tmp_path/'r/forest_C7.png').exists()
    assert {judge_claim(res, c, demo=True).verdict for c in ('C7','C8')}<={'inconclusive','not supported','partly'}

def test_a_network_that_fit_trained(tmp_path):
    "Its file is enough for `u1nb-probe --model`"
    from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
    from u1nb.nets import build
    from u1nb.train import Resident, decode, evaluate, fit
    d = decode(images('digits'), 8)
    data,net = Resident(d, 64, seed=1),attach_u1(build('fastnet_small', 10, 8), size=8)
    f = fit(net, data, None, OneHotU1Loss(class_angles(10), .1), epochs=3, out=tmp_path/'run', device='cpu', progress=False)
    got,transform,fresh,*_ = network(str(tmp_path/'run/run.safetensors'))
    pics = images('digits')
    x = torch.stack([transform(pics[i][0]) for i in range(200)])
    with torch.no_grad(): hits = (got(x).argmax(1)==d.y[:200]).float().mean()
    assert hits==pytest.approx(evaluate(f.model, Resident(d.rows(range(200)), 200, like=data)).accuracy) and not hasattr(got, 'u1')
    assert not torch.equal(fresh(0).head.weight, got.head.weight)
