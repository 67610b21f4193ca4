"What the repository says of the embedded data can be measured again"
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from u1nb.core import Results
from u1nb.claims import Study, c2
from u1nb.data import images
from u1nb.models import pretrained

ROOT = Path(__file__).parents[1]
STORED = ROOT/'nbs/results/20_pretrained_energy/mobilenet_v2-photos.jsonl'

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
