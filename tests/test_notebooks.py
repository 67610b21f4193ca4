"Every notebook runs, as plain `nbdev-test` would run it"
import json, os, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[1]
NBS = sorted(p for p in (ROOT/'nbs').glob('*.ipynb') if not p.name.startswith('_'))

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_notebook(path):
    code = "import sys; from nbdev.test import nbdev_test; nbdev_test(sys.argv[1], n_workers=0)"
    env = {**os.environ, 'MPLBACKEND':'agg', 'TQDM_DISABLE':'1'}
    env.pop('U1NB_DATA', None)
    p = subprocess.run([sys.executable, '-c', code, str(path)], cwd=ROOT, env=env, capture_output=True, text=True)
    out = p.stdout+p.stderr
    assert p.returncode==0 and 'No files were eligible' not in out and 'Success' in out, out[-4000:]

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def code(path): return [(c, ''.join(c['source'])) for c in cells(path) if c['cell_type']=='code']

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_outputs_are_stored(path):
    "Cells that end in a value or draw show it, from a run that went through"
    out = [o for c,_ in code(path) for o in c['outputs']]
    assert sum(bool(c['outputs']) for c,_ in code(path))>=5 and not any(o['output_type']=='error' for o in out)

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_nothing_is_kept_from_running(path):
    "A live cell is a live cell: no skip_exec, and `eval: false` only for widgets"
    text = path.read_text(encoding='utf-8')
    assert 'skip_exec' not in text
    for _,s in code(path): assert not re.search(r'#\|\s*eval:\s*false', s) or 'interact' in s or 'display' in s

def test_there_are_notebooks(): assert len(NBS)>=7
